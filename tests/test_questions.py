# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Questions that a model writes for passages, and the answers that a reader gives them."""

import gzip
import json
import re

import pytest
import torch
from conftest import SENTENCES, passage
from haystack import Document
from transformers import AutoTokenizer, T5ForConditionalGeneration

from btr_cli import questions
from btr_haystack import BTRForConditionalGeneration, BTRForQuestionAnswering
from btr_haystack.errors import DataError
from btr_haystack.squad import Paragraph, Question, merged, read_squad
from btr_haystack.training.asker import ASK, answer_questions, asking, write_questions
from btr_haystack.training.data import PairDataset
from btr_haystack.training.files import read_paragraphs
from btr_haystack.training.stages import StageSettings, run_stage
from btr_haystack.training.trainer import Weights
from btr_haystack.windows import frame_of
from haystack_integrations.components.readers.btr import BTRReader

WRITES = Weights(writing=1.0)
TESTED = ("TITLE 0", " title_1 ", "Title 2", "")


@pytest.fixture
def passages_file(tmp_path):
    path = tmp_path / "passages.tsv"
    rows = [f"{number}\t{text}\tTitle_{number}\n" for number, text in enumerate(SENTENCES)]
    path.write_text("id\ttext\ttitle\n" + "".join(rows), encoding="utf-8")
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
    path.write_text(json.dumps({"data": [{"title": "Sentences", "paragraphs": paragraphs}]}), encoding="utf-8")
    return path


def test_questions_turned_round():
    found, unknown = Question("1", "What is Oslo?", (("a town", 8),)), Question("2", "Who?", ())
    (paragraph,) = asking([Paragraph("Oslo", "Oslo is a town.", (found, unknown))])
    assert paragraph.questions == (Question("1", ASK, (("a town", 8),), "What is Oslo?"),)


def test_an_asker_learns_to_write_questions(seq2seq, squad_file, tmp_path, logged_often):
    """What it is taught, word for word."""
    settings = StageSettings(
        "asker", str(seq2seq), str(tmp_path / "asker"), (str(squad_file),), steps=60, groups=2, questions=1,
        learning_rate=5e-3, warmup=5, validation=0.0, optimizer="adamw", bf16=False,
        weights=WRITES,
    )  # fmt: skip
    model = BTRForConditionalGeneration.from_pretrained(run_stage(settings)).float().eval()
    assert model.config.k == 0
    history = json.loads((tmp_path / "asker" / "training.json").read_text(encoding="utf-8"))["history"]
    losses = [entry["loss_writing"] for entry in history if "loss_writing" in entry]
    assert losses[-1] < 0.5 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "asker")
    paragraphs = read_squad(squad_file)
    known = {question.text.lower() for paragraph in paragraphs for question in paragraph.questions}
    torch.manual_seed(0)
    written = write_questions(model, tokenizer, [paragraph.text for paragraph in paragraphs], each=8)
    assert len(written) == len(paragraphs)
    assert any(one.lower() in known for found in written for one in found)  # a third of them, with three seeds
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
    counts = [
        sum(len(paragraph.questions) for paragraph in answer_questions(model, tokenizer, paragraphs, least=least))
        for least in (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (len(paragraphs) * len(asked), 0)
    nobody = [Paragraph("", "Nobody asked.", ()), Paragraph("", "", asked), Paragraph("", " \n", asked)]
    assert answer_questions(model, tokenizer, nobody, least=0.0) == []
    assert answer_questions(model, tokenizer, [], least=0.0) == []


def test_only_the_first_tokens_are_read(plain_reader):
    folder = plain_reader("bert")
    model, tokenizer = BTRForQuestionAnswering.from_reader(folder).eval(), AutoTokenizer.from_pretrained(folder)
    asked = (Question("1", "Who?", ()),)
    long = Paragraph("", " ".join(SENTENCES * 20), asked)
    (found,) = answer_questions(model, tokenizer, [long, Paragraph("", SENTENCES[0], asked)], least=0, window=12)[:1]
    ((answer, start),) = found.questions[0].answers
    last = tokenizer(long.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][11][1]
    assert start + len(answer) <= last


def test_every_passage_is_asked_about_by_itself(seq2seq):
    """All questions of an asker are one text, so no passage has rivals."""
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    paragraphs = [
        Paragraph(str(n), f"{passage(n)} {n}", (Question(str(n), f"What of {n}?", ((passage(n).split()[0], 0),)),))
        for n in range(90)
    ]
    dataset = PairDataset(
        asking(paragraphs), tokenizer, frame_of(tokenizer), length=90, passages=1, negatives=0.0, writes=True
    )  # fmt: skip
    groups = [dataset[number] for number in range(90)]
    assert all((len(group.passages), len(group.pairs)) == (1, 1) for group in groups)
    said = {tokenizer.decode(group.pairs[0].answer, skip_special_tokens=True).strip() for group in groups}
    assert len(said) == 90


def test_a_window_that_does_not_answer_asks_nothing(seq2seq):
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    text = " ".join(f"word{n}" for n in range(200))
    paragraph = Paragraph("", text, (Question("1", "Which is last?", (("word199", text.index("word199")),)),))
    settings = {"passages": 1, "negatives": 0.0, "window": 60, "writes": True}
    dataset = PairDataset(asking([paragraph]), tokenizer, frame_of(tokenizer), length=40, **settings)
    pairs = [dataset[number].pairs[0] for number in range(40)]
    assert {bool(pair.answer) for pair in pairs} == {True, False}
    assert all(bool(pair.answer) == (pair.start >= 0) for pair in pairs)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": Weights()}, "weights.writing is 0"),
        ({"teacher": "t"}, "teacher is 't', which has no meaning for stage 'asker'"),
        ({"decoder_only": True}, "decoder_only is True"),
        ({"frozen_lower": True}, "frozen_lower is True"),
    ],
)
def test_askers_that_cannot_be(changes, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        StageSettings(**{"stage": "asker", "base": "b", "output": "o", "data": ("d",), "weights": WRITES} | changes)


def test_claims_and_prompts_are_no_questions(seq2seq, tmp_path):
    file = tmp_path / "fever.jsonl"
    file.write_text(
        json.dumps({"claim": "Oslo is a town.", "label": "SUPPORTS", "evidence": ["Oslo is a town."]}), encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"questions in the SQuAD format; leave out .*fever\.jsonl"):
        run_stage(StageSettings("asker", str(seq2seq), str(tmp_path / "a"), (str(file),), weights=WRITES))


class TestCommand:
    @pytest.fixture(scope="class")
    def asker(self, seq2seq, tmp_path_factory):
        """Writes any token as gladly as any other, so that many of its questions end."""
        model = T5ForConditionalGeneration.from_pretrained(seq2seq)
        torch.nn.init.zeros_(model.lm_head.weight)
        folder = tmp_path_factory.mktemp("asker")
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(seq2seq).save_pretrained(folder)
        return folder

    @pytest.fixture
    def asked(self, passages_file, asker, plain_reader, tmp_path):
        return (
            "questions", passages_file, "--asker", asker, "--teacher", plain_reader("t5"), "--least", 0, "--each", 48,
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
        articles = [{"title": title, "paragraphs": [{"context": "Here.", "qas": []}]} for title in TESTED]
        (tmp_path / "dev.json").write_text(json.dumps({"data": articles}), encoding="utf-8")
        status, told, errors = btr(*asked, "--without", tmp_path / "dev.json")
        assert status == 0, errors
        assert f"left out 3 of {len(SENTENCES)} passages" in told
        texts = {paragraph.text for paragraph in read_squad(tmp_path / "asked.json.gz")}
        assert not texts & set(SENTENCES[:3])
        assert texts

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
        part.write_text(part.read_text(encoding="utf-8") + '[{"title": "cut', encoding="utf-8")
        begun = part.read_bytes()
        assert "holds asked passages of another run" in refused(*asked, "--seed", 1)
        passages_file = asked[1]
        text = passages_file.read_text(encoding="utf-8")
        passages_file.write_text(text.replace("Norway", "Sweden"), encoding="utf-8")
        assert "holds asked passages of another run" in refused(*asked)
        passages_file.write_text(text, encoding="utf-8")
        assert part.read_bytes() == begun
        assert btr(*asked)[0] == 0
        assert file.read_bytes() == whole
        assert calls[3] == calls[2]

    def test_a_damaged_part(self, refused, btr, asked, tmp_path, monkeypatch):
        part = tmp_path / "asked.json.gz.part"

        def killed(*_given, **_named):
            msg = "killed"
            raise OSError(msg)

        with monkeypatch.context() as patched:
            patched.setattr(questions, "_asked", killed)
            refused(*asked)
        head = part.read_text(encoding="utf-8")
        part.write_text(f"{head}nonsense\n", encoding="utf-8")
        assert "asked.json.gz.part, line 2: not an asked passage: nonsense" in refused(*asked)
        part.write_text(f'{head}[{{"no": "question"}}]\n', encoding="utf-8")
        assert "has lines that are not questions" in refused(*asked)
        part.write_text("\n", encoding="utf-8")
        assert "asked.json.gz.part, line 1: not an asked passage" in refused(*asked)
        part.write_text(head[:20], encoding="utf-8")
        assert btr(*asked)[0] == 0

    def test_two_runs_together(self, btr, asked, tmp_path):
        """Questions of another seed are others, not the same again."""
        other = tmp_path / "other.json"
        assert btr(*asked, "--sample", 4)[0] == 0
        assert btr(*asked, "--sample", 4, "--seed", 1, "--output", other)[0] == 0
        both = [read_squad(tmp_path / "asked.json.gz"), read_squad(other)]
        counts = [sum(len(paragraph.questions) for paragraph in found) for found in both]
        together = merged(paragraph for found in both for paragraph in found)
        assert sum(len(paragraph.questions) for paragraph in together) == sum(counts)
        assert all(len(found) <= 4 for found in both)

    def test_refusals(self, refused, asked, split_reader, plain_reader, squad_file, tmp_path):
        output = ("--output", tmp_path / "none" / "asked.json")
        assert "none: no such folder for the questions" in refused(*asked, *output)
        assert "expected a passage's id, text and title" in refused("questions", squad_file, *asked[2:])
        assert "is a split reader; expected one that reads" in refused(*asked, "--teacher", split_reader("t5"))
        assert "has no decoder" in refused(*asked, "--asker", asked[5])
        bert = ("--teacher", plain_reader("bert"), "--window", 5000)
        assert "window is 5000, but this encoder has only 512 positions" in refused(*asked, *bert)
        titles = [f"Title {number}" for number in range(len(SENTENCES))]
        articles = [{"title": title, "paragraphs": [{"context": "Here.", "qas": []}]} for title in titles]
        (tmp_path / "dev.json").write_text(json.dumps({"data": articles}), encoding="utf-8")
        assert "is of an article that is left out" in refused(*asked, "--without", tmp_path / "dev.json")
        assert "the teacher is sure of no answer: --least is 1.0" in refused(*asked, "--least", 1)
        (tmp_path / "asked.json.gz").write_text("mine", encoding="utf-8")
        assert "is there already" in refused(*asked)
        assert (tmp_path / "asked.json.gz").read_text(encoding="utf-8") == "mine"
