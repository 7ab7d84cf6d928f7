# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch
from conftest import FAMILIES, passage
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5Config

from btr_haystack import BTRConfig, BTRForConditionalGeneration, BTRForQuestionAnswering, SplitReader, fit_codes
from btr_haystack.generator import GenerativeReader
from btr_haystack.padding import padded
from btr_haystack.training.stages import StageSettings, run_stage
from btr_haystack.training.trainer import Weights
from btr_haystack.windows import question_part, tokenise
from btr_haystack.word_match import STEP, WordMatch, matches

TEXTS = [passage(2), "Oslo.", "", " ".join(passage(number) for number in range(40))]
QUESTION = "Which river leaves Lake Zürich, passage 2?"


@pytest.fixture(scope="module")
def marking(split_reader, tmp_path_factory):
    """Gives the folder of a reader whose marks are large enough to matter."""

    def make(family):
        model = BTRForQuestionAnswering.from_pretrained(split_reader(family, k=1, word_match=True))
        torch.manual_seed(1)
        for mark in model.word_match.parameters():
            mark.data.normal_(std=2 / STEP)
        folder = tmp_path_factory.mktemp("marking") / family
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(split_reader(family, k=1, word_match=True)).save_pretrained(folder)
        return folder

    return make


rows_of_ids = st.integers(1, 4).flatmap(
    lambda rows: st.lists(
        st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.lists(st.integers(1, 6), max_size=9)),
        min_size=rows, max_size=rows,
    )
)  # fmt: skip


@given(rows_of_ids)
def test_matches_are_the_shared_tokens(rows):
    ids, _ = padded([[*question, *rest] for question, rest in rows], -1)
    matched, asking = matches(ids, torch.tensor([len(question) for question, _ in rows]))
    for row, (question, rest) in enumerate(rows):
        expected = [token in rest for token in question] + [token in question for token in rest]
        assert matched[row].tolist() == expected + [False] * (ids.shape[1] - len(expected))
        assert asking[row].sum() == len(question)


def test_marks_are_added_in_the_size_of_the_state():
    marking = WordMatch(2)
    marking.question.data = torch.tensor([1.0, 0.0]) / STEP
    marking.passage.data = torch.tensor([0.0, 1.0]) / STEP
    states = torch.tensor([[[3.0, 3.0], [1.0, 1.0], [2.0, 2.0]]])
    marked = marking(states, torch.tensor([[7, 8, 7]]), torch.tensor([2]))
    assert marked.tolist() == [[[6.0, 3.0], [1.0, 1.0], [2.0, 4.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["t5", "bert"])
def test_read_in_half_precision(split_reader, family, dtype, tmp_path):
    folder = split_reader(family)
    model = BTRForQuestionAnswering.from_reader(folder, k=2, bits=16, settings={"word_match": True})
    for marks in model.word_match.parameters():
        torch.nn.init.normal_(marks, std=0.02)
    model.save_pretrained(tmp_path)
    SplitReader.from_pretrained(folder).tokenizer.save_pretrained(tmp_path)
    whole, half = SplitReader.from_pretrained(tmp_path), SplitReader.from_pretrained(tmp_path, dtype=dtype)
    assert half.model.dtype == dtype
    passages = whole.encode(TEXTS)
    [one], [other] = whole.read([QUESTION], passages), half.read([QUESTION], passages)
    assert one.score.max() == pytest.approx(other.score.max(), rel=0.03, abs=0.1)
    assert len(half.encode(TEXTS)) == len(passages)


def test_new_marks_change_nothing(split_reader):
    folder = split_reader("t5", k=1)
    plain = SplitReader.from_pretrained(folder)
    model = BTRForQuestionAnswering.from_reader(folder, k=1, bits=16, settings={"word_match": True})
    assert model.word_match is not None
    marking = SplitReader(model, plain.tokenizer)
    passages = plain.encode(TEXTS)
    [one], [other] = plain.read([QUESTION], passages), marking.read([QUESTION], passages)
    assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_marks_as_training_does(family, marking):
    """Marks are saved, loaded, and set alike in batches of training and of reading; they matter."""
    reader = SplitReader.from_pretrained(marking(family), bits=0)  # a bit may tip over from one batch to another
    passages = reader.encode(TEXTS)
    [spans] = reader.read([QUESTION], passages, spans_per_window=1)
    model, frame = reader.model, reader.frame
    asked = [question_part(frame, tokenise(reader.tokenizer, [QUESTION])[0], model.config.max_query_length)]
    parts = [
        window.tolist() for one in passages for window in torch.from_numpy(one.ids).split(one.windows[:, 1].tolist())
    ]
    (question_ids, question_mask), (passage_ids, passage_mask) = (
        padded(part, reader.tokenizer.pad_token_id) for part in (asked, parts)
    )
    given = {
        "question_ids": question_ids, "question_mask": question_mask, "passage_ids": passage_ids,
        "passage_mask": passage_mask, "pairs": torch.tensor([(0, row) for row in range(len(parts))]),
    }  # fmt: skip

    def best() -> list[float]:
        with torch.inference_mode():
            out = model(**given, bits=0)
        scores = []
        for start, end, part in zip(out.start_logits, out.end_logits, parts, strict=True):
            inside = slice(len(asked[0]), len(asked[0]) + len(part) - len(frame.closing))
            pairs = start[inside, None] + end[None, inside]
            scores.append(pairs[torch.ones_like(pairs).triu().bool()].max().item())
        return scores

    assert spans.score.tolist() == pytest.approx(best(), abs=2e-3)
    marked = []
    hook = model.word_match.register_forward_hook(lambda _, given, out: marked.append(not torch.equal(given[0], out)))
    best()
    reader.read([QUESTION], passages)
    hook.remove()
    assert len(marked) >= 2
    assert any(marked[:1])
    assert any(marked[1:])


def test_a_joint_reader_has_no_marks(marking):
    folder = marking("t5")
    assert BTRForQuestionAnswering.from_reader(folder).word_match is None
    assert BTRForQuestionAnswering.from_reader(folder, k=2).word_match is not None
    with pytest.raises(ValueError, match="word_match is on but k is 0"):
        BTRConfig(encoder=T5Config(), k=0, word_match=True)


def test_marks_leave_codes_and_store_alone(split_reader, marking):
    marked, plain = (SplitReader.from_pretrained(f("t5", **s)) for f, s in ((marking, {}), (split_reader, {"k": 1})))
    assert marked.fingerprint.digest == plain.fingerprint.digest


def test_a_writing_reader_marks_too(generative, tmp_path):
    model = BTRForConditionalGeneration.from_reader(generative, k=2, bits=32, settings={"word_match": True})
    tokenizer = AutoTokenizer.from_pretrained(generative)
    fit_codes(model, tokenizer, [passage(number) for number in range(30)])
    reader = GenerativeReader(model, tokenizer)
    passages = reader.encode(TEXTS[:2])
    torch.manual_seed(1)
    for mark in model.word_match.parameters():
        mark.data.normal_(std=2 / STEP)
    marked, states = reader.model.marked, []
    reader.model.marked = lambda joint, *others: states.append((joint, marked(joint, *others))) or states[-1][1]
    reader.write([QUESTION], passages)
    assert states
    assert not any(torch.equal(before, after) for before, after in states)


def test_marks_are_trained_without_a_teacher(plain_reader, tmp_path):
    text = passage(1)
    answers = [{"text": text.split()[2], "answer_start": text.index(text.split()[2])}]
    entry = {"context": text, "qas": [{"id": "1", "question": "What of passage 1?", "answers": answers}]}
    data = tmp_path / "train.json"
    data.write_text(json.dumps({"data": [{"title": "one", "paragraphs": [entry]}]}), encoding="utf-8")
    shared = {"stage": "binarised", "base": str(plain_reader("t5")), "data": (str(data),), "k": 1, "bits": 16}
    with pytest.raises(ValueError, match="set the weights of imitation and distillation to 0"):
        StageSettings(**shared, output=str(tmp_path / "x"))
    alone = Weights(imitation=0, distillation=0)
    settings = StageSettings(**shared, output=str(tmp_path / "m"), weights=alone, steps=3, warmup=1)
    folder = run_stage(settings)
    model = BTRForQuestionAnswering.from_pretrained(folder)
    assert model.word_match.passage.abs().max() > 0
    for base, expected in ((folder, True), (plain_reader("t5"), False)):
        told = {**shared, "base": str(base), "output": str(tmp_path / str(expected)), "word_match": False}
        again = run_stage(StageSettings(**told, weights=alone, steps=1, warmup=0))
        assert BTRForQuestionAnswering.from_pretrained(again).config.word_match is expected
