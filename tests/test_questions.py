# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Questions that a model writes for passages, and the answers that a reader gives them."""

import gzip
import json

import pytest
import torch
from conftest import SENTENCES
from haystack import Document
from transformers import AutoTokenizer

from btr_cli import questions
from btr_haystack import BTRForConditionalGeneration, BTRForQuestionAnswering
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.training.asker import ASK, answer_questions, asking, write_questions
from btr_haystack.training.data import PairDataset
from btr_haystack.training.files import read_paragraphs
from btr_haystack.training.stages import StageSettings, run_stage
from btr_haystack.training.trainer import Weights
from btr_haystack.windows import frame_of
from haystack_integrations.components.readers.btr import BTRReader


@pytest.fixture
def passages_file(tmp_path):
    path = tmp_path / "passages.tsv"
    rows = [f"{number}\t{text}\tTitle_{number}\n" for number, text in enumerate(SENTENCES)]
    path.write_text("id\ttext\ttitle\n" + "".join(rows))
    return path


@pytest.fixture
def squad_file(tmp_path):
    """A question for each of the sentences, in which its first words stand."""
    paragraphs = [
        {"context": text, "qas": [{"id": str(i), "question": f"What of {text.split()[-1]}", "answers": [
            {"text": text.split()[0], "answer_start": text.index(text.split()[0])}]}]}
        for i, text in enumerate(SENTENCES)
    ]  # fmt: skip
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"data": [{"title": "Sentences", "paragraphs": paragraphs}]}))
    return path


def test_questions_turned_round():
    found, unknown = Question("1", "What is Oslo?", (("a town", 8),)), Question("2", "Who?", ())
    (paragraph,) = asking([Paragraph("Oslo", "Oslo is a town.", (found, unknown))])
    assert paragraph.questions == (Question("1", ASK, (("a town", 8),), "What is Oslo?"),)


def test_an_asker_learns_to_write_questions(seq2seq, squad_file, tmp_path):
    """What it is taught, word for word."""
    settings = StageSettings(
        "asker", str(seq2seq), str(tmp_path / "asker"), (str(squad_file),), steps=150, passages=2, questions=1,
        learning_rate=5e-3, warmup=5, validation=0.0, optimizer="adamw", bf16=False,
        weights=Weights(writing=1.0, shared=0.0),
    )  # fmt: skip
    model = BTRForConditionalGeneration.from_pretrained(run_stage(settings)).float().eval()
    assert model.config.k == 0
    history = json.loads((tmp_path / "asker" / "training.json").read_text())["history"]
    losses = [entry["loss_writing"] for entry in history if "loss_writing" in entry]
    assert losses[-1] < 0.5 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "asker")
    paragraphs = read_squad(squad_file)
    known = {question.text.lower() for paragraph in paragraphs for question in paragraph.questions}
    torch.manual_seed(0)
    written = write_questions(model, tokenizer, [paragraph.text for paragraph in paragraphs], each=8)
    assert len(written) == len(paragraphs)
    assert any(one.lower() in known for found in written for one in found)
    assert all(len(found) == len(set(found)) for found in written)


@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
def test_answers_are_those_of_the_reader(family, plain_reader):
    """Each question's answer is what `BTRReader` with the same ordinary model says, at the place that it names."""
    folder = plain_reader(family)
    model = BTRForQuestionAnswering.from_reader(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"  {SENTENCES[0]} Blåbær \U0001f600 grow there. ", *SENTENCES[1:4]]
    asked = tuple(
        Question(str(number), text, ()) for number, text in enumerate(("What is it?", "Who?", "Wo ist Oslo?"))
    )
    paragraphs = [Paragraph("", text, asked) for text in texts]
    found = answer_questions(model, tokenizer, paragraphs, least=0.0)
    assert [paragraph.text for paragraph in found] == texts
    reader = BTRReader(folder, no_answer=False, top_k=1, max_answer_length=30)
    for paragraph in found:
        assert len(paragraph.questions) == len(asked)
        for question in paragraph.questions:
            ((answer, start),) = question.answers
            assert paragraph.text.startswith(answer, start)
            (best,) = reader.run(question.text, [Document(content=paragraph.text)])["answers"]
            assert answer == best.data.strip()
    some = answer_questions(model, tokenizer, paragraphs, least=0.2)
    kept = [question for paragraph in some for question in paragraph.questions]
    assert len(kept) < len(paragraphs) * len(asked)
    assert answer_questions(model, tokenizer, paragraphs, least=1.0) == []
    assert answer_questions(model, tokenizer, [Paragraph("", "Nobody asked.", ())], least=0.0) == []


class TestCommand:
    @pytest.fixture
    def asked(self, passages_file, seq2seq, plain_reader, tmp_path):
        return (
            "questions", passages_file, "--asker", seq2seq, "--teacher", plain_reader("t5"), "--least", 0,
            "--output", tmp_path / "asked.json.gz",
        )  # fmt: skip

    def test_a_file_to_train_on(self, btr, asked, plain_reader, tmp_path):
        status, told, errors = btr(*asked)
        assert status == 0, errors
        file = tmp_path / "asked.json.gz"
        assert gzip.decompress(file.read_bytes()).startswith(b'{"version"')
        paragraphs = read_paragraphs(file)
        count = sum(len(paragraph.questions) for paragraph in paragraphs)
        assert f"{count} questions about {len(paragraphs)} of {len(SENTENCES)} passages" in " ".join(told.split())
        assert {paragraph.text for paragraph in paragraphs} <= set(SENTENCES)
        tokenizer = AutoTokenizer.from_pretrained(plain_reader("t5"))
        assert len(PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=2, passages=1)[0].pairs)
        assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.whole"))

    def test_articles_left_out(self, btr, asked, tmp_path):
        tested = {"data": [{"title": f"TITLE {number}", "paragraphs": []} for number in range(3)]}
        tested["data"][0]["paragraphs"] = [{"context": "Here.", "qas": []}]
        (tmp_path / "dev.json").write_text(json.dumps(tested))
        status, _, errors = btr(*asked, "--without", tmp_path / "dev.json")
        assert status == 0, errors
        assert SENTENCES[0] not in {paragraph.text for paragraph in read_squad(tmp_path / "asked.json.gz")}

    def test_a_run_that_was_broken_off_goes_on(self, btr, refused, asked, tmp_path, monkeypatch):
        monkeypatch.setattr(questions, "AT_A_TIME", 2)
        assert btr(*asked)[0] == 0
        file = tmp_path / "asked.json.gz"
        whole = file.read_bytes()
        file.unlink()
        calls = []

        def broken(passages, *given, **named):
            calls.append([one.id for one in passages])
            if len(calls) == 3:
                msg = "no more room"
                raise OSError(msg)
            return before(passages, *given, **named)

        before = questions._asked
        monkeypatch.setattr(questions, "_asked", broken)
        assert "no more room" in refused(*asked)
        part = tmp_path / "asked.json.gz.part"
        part.write_text(part.read_text() + '[{"title": "cut')
        assert "questions of another run" in refused(*asked, "--seed", 1)
        assert btr(*asked)[0] == 0
        assert file.read_bytes() == whole
        assert calls[3] == calls[2]

    def test_refusals(self, refused, asked, split_reader, squad_file, tmp_path):
        output = ("--output", tmp_path / "none" / "asked.json")
        assert "none: no such folder for the questions" in refused(*asked, *output)
        assert "expected a passage's id, text and title" in refused("questions", squad_file, *asked[2:])
        assert "is a split reader; expected one that reads" in refused(*asked, "--teacher", split_reader("t5"))
        assert "has no decoder" in refused(*asked, "--asker", asked[5])
        (tmp_path / "asked.json.gz").write_text("mine")
        assert "is there already" in refused(*asked)
        assert (tmp_path / "asked.json.gz").read_text() == "mine"
