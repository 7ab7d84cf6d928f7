# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import copy
import gzip
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack.errors import BTRError, DataError
from btr_haystack.squad import Paragraph, Question, read_squad

CONTEXT = "Zürich lies on the Limmat. Its lake feeds the river."
FILE = {
    "version": "v2.0",
    "data": [
        {
            "title": "Zürich",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Which river flows through Zürich?",
                            "answers": [
                                {"text": "the Limmat", "answer_start": 15},
                                {"text": "Limmat", "answer_start": 19},
                            ],
                            "is_impossible": False,
                        },
                        {
                            "id": "q2",
                            "question": "Who founded Zürich?",
                            "answers": [],
                            "plausible_answers": [{"text": "Limmat", "answer_start": 19}],
                            "is_impossible": True,
                        },
                    ],
                },
                {"context": "Nobody asks anything here.", "qas": []},
            ],
        }
    ],
}
EXPECTED = [
    Paragraph(
        "Zürich",
        CONTEXT,
        (
            Question("q1", "Which river flows through Zürich?", (("the Limmat", 15), ("Limmat", 19))),
            Question("q2", "Who founded Zürich?", ()),
        ),
    ),
    Paragraph("Zürich", "Nobody asks anything here.", ()),
]


@pytest.fixture
def squad():
    return copy.deepcopy(FILE)


@pytest.fixture
def write(tmp_path):
    def write(content, name="squad.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def test_reads_both_versions(write, squad):
    assert read_squad(write(squad)) == EXPECTED
    for question in squad["data"][0]["paragraphs"][0]["qas"]:
        del question["is_impossible"]
    assert read_squad(str(write(squad))) == EXPECTED


def test_the_content_tells_whether_it_is_compressed(write):
    data = json.dumps(FILE).encode()
    assert read_squad(write(gzip.compress(data, mtime=0), "squad.json")) == EXPECTED
    assert read_squad(write(data, "squad.json.gz")) == EXPECTED


def test_reads_a_byte_order_mark(write):
    assert read_squad(write(b"\xef\xbb\xbf" + json.dumps(FILE, ensure_ascii=False).encode())) == EXPECTED


def test_impossible_questions_have_no_answers(write, squad):
    question = squad["data"][0]["paragraphs"][0]["qas"][0]
    question["is_impossible"] = True
    assert read_squad(write(squad))[0].questions[0].answers == ()
    del question["answers"]
    assert read_squad(write(squad))[0].questions[0].answers == ()


def test_annotation_tools_write_numbers_for_ids_and_no_titles(write, squad):
    del squad["data"][0]["title"]
    squad["data"][0]["paragraphs"][0]["qas"][0]["id"] = 7
    paragraph = read_squad(write(squad))[0]
    assert (paragraph.title, paragraph.questions[0].id) == ("", "7")


def test_wrong_answers_are_dropped_with_one_warning(write, squad, caplog):
    questions = squad["data"][0]["paragraphs"][0]["qas"]
    questions[0]["answers"] += [
        {"text": "Limmat", "answer_start": 18},
        {"text": "Limmat", "answer_start": -7},
        {"text": "river.", "answer_start": 5000},
        {"text": "", "answer_start": 3},
    ]
    questions.append({"id": "q3", "question": "Where?", "answers": [{"text": "Bern", "answer_start": 0}]})
    with caplog.at_level(logging.WARNING):
        assert read_squad(write(squad)) == EXPECTED  # q3 would pass for an unanswerable question
    (record,) = caplog.records
    assert "dropped 5 answers" in record.getMessage()
    assert "1 questions" in record.getMessage()


def test_a_correct_file_gives_no_warning(write, caplog):
    read_squad(write(FILE))
    assert not caplog.records


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ([], "data", r"key 'data' is missing$"),
        (["data", 0], "paragraphs", r"key 'paragraphs' is missing in data\[0\]$"),
        (["data", 0, "paragraphs", 1], "context", r"key 'context' is missing in data\[0\]\.paragraphs\[1\]$"),
        (["data", 0, "paragraphs", 1], "qas", r"key 'qas' is missing in data\[0\]\.paragraphs\[1\]$"),
        (["data", 0, "paragraphs", 0, "qas", 1], "id", r"'id' is missing in data\[0\]\.paragraphs\[0\]\.qas\[1\]$"),
        (["data", 0, "paragraphs", 0, "qas", 0], "question", r"'question' is missing in .*\.qas\[0\]$"),
        (["data", 0, "paragraphs", 0, "qas", 0], "answers", r"'answers' is missing in .*\.qas\[0\]$"),
        (["data", 0, "paragraphs", 0, "qas", 0, "answers", 1], "text", r"'text' is missing in .*\.answers\[1\]$"),
        (
            ["data", 0, "paragraphs", 0, "qas", 0, "answers", 1],
            "answer_start",
            r"'answer_start' is missing in .*\[1\]$",
        ),
    ],
)
def test_errors_name_the_missing_key_and_its_place(write, squad, where, key, message):
    item = squad
    for step in where:
        item = item[step]
    del item[key]
    path = write(squad)
    with pytest.raises(DataError, match=message) as caught:
        read_squad(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "an object with the key 'data' is expected"),
        ({"data": {}}, "'data' must be of type list, not {}"),
        ({"data": ["title"]}, r"'title' is expected in data\[0\]"),
        ({"data": [{"title": "", "paragraphs": [{"context": None, "qas": []}]}]}, "'context' is missing"),
        ({"data": [{"title": "", "paragraphs": [{"context": ["a"], "qas": []}]}]}, "'context' must be of type str"),
        (
            {"data": [{"paragraphs": [{"context": "a", "qas": [{"id": True, "question": "?", "answers": []}]}]}]},
            "'id' must be of type .*, not True",
        ),
        (b"", "line 1: not JSON"),
        (b'{"data": [', "line 1: not JSON"),
        (b'{"data": "\xff"}', "line 1: expected UTF-8, found the byte 0xff"),
        (b"[" * 1_000_000, "line 1: not JSON"),
        (gzip.compress(b"{}" * 1000, mtime=0)[:20], "cannot be read"),
        (b"\x1f\x8bnot really", "cannot be read"),
    ],
)
def test_other_files_are_refused(write, content, message):
    with pytest.raises(DataError, match=message):
        read_squad(write(content))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_squad(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_squad(tmp_path)
    assert issubclass(DataError, BTRError)


@given(st.text(min_size=1), st.data())
def test_every_answer_is_a_part_of_its_paragraph(tmp_path_factory, context, data):
    numbers = st.integers(-1, len(context) + 1)
    spans = data.draw(st.lists(st.tuples(numbers, numbers, st.booleans())))
    answers = [{"text": context[a:b] + "?" * wrong, "answer_start": a} for a, b, wrong in spans]
    path = tmp_path_factory.mktemp("squad") / "squad.json"
    item = {"context": context, "qas": [{"id": "q", "question": "?", "answers": answers}]}
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [item]}]}), encoding="utf-8")
    (paragraph,) = read_squad(path)
    assert paragraph.text == context
    for question in paragraph.questions:
        assert bool(question.answers) == bool(answers)
        for text, start in question.answers:
            assert text
            assert context[start : start + len(text)] == text
