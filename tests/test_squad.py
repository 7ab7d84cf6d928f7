# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import copy
import gzip
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack.errors import BTRError, DataError
from btr_haystack.occurrences import trimmed
from btr_haystack.squad import Paragraph, Question, merged, read_squad

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


@pytest.mark.parametrize("start", [18, -7, 5000, 1e400, 19.5, None, True, "19", "missing"])
def test_answers_are_kept_whatever_their_offset(write, squad, start, caplog):
    questions = squad["data"][0]["paragraphs"][0]["qas"]
    questions[0]["answers"] = [{"text": "limmat"} | ({} if start == "missing" else {"answer_start": start})]
    (answer,) = read_squad(write(squad))[0].questions[0].answers
    assert answer == ("limmat", start if start in (18, 5000) else -1)
    assert not caplog.records


def test_offsets_may_be_numbers_with_a_point(write, squad):
    squad["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [{"text": "Limmat", "answer_start": 19.0}]
    ((answer, start),) = read_squad(write(squad))[0].questions[0].answers
    assert CONTEXT[start:].startswith(answer)


def test_null_is_what_is_not_said(write, squad):
    article = squad["data"][0]
    article["title"] = None
    answered, impossible = article["paragraphs"][0]["qas"]
    answered["is_impossible"] = impossible["answers"] = None
    (paragraph, _) = read_squad(write(squad))
    assert paragraph == Paragraph("", CONTEXT, EXPECTED[0].questions)


def test_questions_that_do_not_say_whether_there_is_an_answer_are_left_out_with_one_warning(write, squad, caplog):
    """They would pass for unanswerable ones."""
    said = {"question": "Where?", "is_impossible": None}
    unclear = [
        {"answers": None},
        {},
        {"answers": [{"text": " \u200b", "answer_start": 0}]},
        {"answers": {"text": [""]}},
    ]
    squad["data"][0]["paragraphs"][0]["qas"] += [said | {"id": str(i)} | one for i, one in enumerate(unclear)]
    assert read_squad(write(squad)) == EXPECTED
    (record,) = caplog.records
    assert "squad.json: left out 4 questions that have no text of an answer" in record.getMessage()


ROWS = [
    {
        "id": "q1", "title": "Zürich", "context": CONTEXT, "question": "Which river flows through Zürich?",
        "answers": {"text": ["the Limmat", "Limmat"], "answer_start": [15, 19]},
    },
    {
        "id": "o", "title": "Oslo", "context": "Oslo.", "question": "What?",
        "answers": [{"text": "Oslo", "answer_start": 0}],
    },
    {
        "id": "q2", "title": "Zürich", "context": CONTEXT, "question": "Who founded Zürich?",
        "answers": {"text": [], "answer_start": []},
    },
]  # fmt: skip
OF_ROWS = [EXPECTED[0], Paragraph("Oslo", "Oslo.", (Question("o", "What?", (("Oslo", 0),)),))]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    "content",
    [
        lines(ROWS),
        b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\r\n\r\n"),
        gzip.compress(lines(ROWS)),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=1).encode().replace(b"\n", b"\r\n"),
        json.dumps({"version": "v2.0", "data": ROWS}, indent=2).encode(),
    ],
    ids=["lines", "windows", "gzip", "list", "pretty list", "data"],
)
def test_rows_of_one_context_are_a_paragraph(write, content):
    assert read_squad(write(content, "rows.json")) == OF_ROWS


def test_rows_may_lack_all_but_context_and_question(write):
    rows = [
        {"context": "Oslo.", "question": "What?", "answers": ["Oslo"], "title": None, "id": None},
        {"context": "Oslo.", "question": "Who?", "answers": {"text": "Oslo", "answer_start": 0}, "id": 7},
        {"context": "Oslo.", "question": "Why?", "answers": {"text": ["Oslo", "so"], "answer_start": [0]}},
        {"context": "Oslo.", "question": "When?", "is_impossible": True},
    ]
    assert read_squad(write(lines(rows))) == [
        Paragraph("", "Oslo.", (
            Question("1", "What?", (("Oslo", -1),)), Question("7", "Who?", (("Oslo", 0),)),
            Question("3", "Why?", (("Oslo", 0), ("so", -1))), Question("4", "When?", ()),
        ))
    ]  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_of_parquet(tmp_path, compressed):
    table = pytest.importorskip("pyarrow").Table.from_pylist([ROWS[0], ROWS[2]])
    path = tmp_path / "train.txt"
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    if compressed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_squad(path) == EXPECTED[:1]


def test_damaged_parquet_and_a_missing_pyarrow_are_named(write, monkeypatch):
    path = write(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        read_squad(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"squad\.json is a Parquet file.*pip install 'btr-haystack\[parquet\]'"):
        read_squad(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ufeff{}".encode("utf-16-le"), "text in UTF-16.*expected text in UTF-8"),
        (b"PK\x03\x04 and more", "a zip archive; expected"),
        (lines([{"question": "who?", "ctxs": []}]), "found the keys 'question', 'ctxs', as of questions with passages"),
        (lines([{"question": "who?", "answer": ["I"]}]), "as of questions alone, as of NQ-open .*expected SQuAD"),
        (lines([{"a": 1, "b": 2}]), "line 1: found the keys 'a', 'b'; expected SQuAD .*; rows of SQuAD"),
        (b"\nid,question\n1,who?\n", "line 2: not JSON: found 'id,question'; expected SQuAD"),
        (lines([ROWS[0], ROWS[0] | {"context": ["a"]}]), "line 2: 'context' must be of type str, not"),
        (lines([ROWS[0] | {"answers": "Oslo"}]), "line 1: 'answers' must be of type list or dict, not 'Oslo'"),
        (
            lines([ROWS[0] | {"answers": {"text": [7]}}]),
            "line 1.answers: the value of 'text' is .7.; expected a list of",
        ),
        (lines([ROWS[0]]) + b"{", "line 2: not JSON"),
    ],
)
def test_the_form_that_was_found_is_named(write, content, message):
    with pytest.raises(DataError, match=r"squad\.json.*" + message):
        read_squad(write(content))


def test_one_paragraph_of_several_files_keeps_every_question():
    """Rows without ids have numbers, which come again in each file."""
    one, same, other = (Question("1", text, ()) for text in ("What?", "What?", "Who?"))
    (paragraph,) = merged(Paragraph("", "Oslo.", (question,)) for question in (one, same, other))
    assert paragraph.questions == (one, other)


def test_a_correct_file_gives_no_warning(write, caplog):
    read_squad(write(FILE))
    assert not caplog.records


@pytest.mark.parametrize(
    ("where", "key", "message"),
    [
        ([], "data", r"line 1: found the keys 'version'; expected SQuAD"),
        (["data", 0], "paragraphs", r": data\[0\]: found the keys 'title'; expected SQuAD"),
        (["data", 0, "paragraphs", 1], "context", r": data\[0\]\.paragraphs\[1\]: the key 'context' is missing; found"),
        (["data", 0, "paragraphs", 1], "qas", r": data\[0\]\.paragraphs\[1\]: the key 'qas' is missing; found"),
        (["data", 0, "paragraphs", 0, "qas", 1], "id", r": data\[0\]\.paragraphs\[0\]\.qas\[1\]: the key 'id' is miss"),
        (["data", 0, "paragraphs", 0, "qas", 0], "question", r"\.qas\[0\]: the key 'question' is missing; found 'id'"),
        (["data", 0, "paragraphs", 0, "qas", 0, "answers", 1], "text", r"\.answers\[1\]: the key 'text' is missing"),
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
        ([], "empty; expected questions: SQuAD"),
        ({"data": []}, "empty; expected questions: SQuAD"),
        ({"data": {}}, "found the keys 'data'; expected SQuAD"),
        ({"data": ["title"]}, r"data\[0\]: found 'title'; expected SQuAD"),
        ({"data": [{"title": "", "paragraphs": [{"context": None, "qas": []}]}]}, "'context' is missing"),
        ({"data": [{"title": "", "paragraphs": [{"context": ["a"], "qas": []}]}]}, "'context' must be of type str"),
        (
            {"data": [{"paragraphs": [{"context": "a", "qas": [{"id": True, "question": "?", "answers": []}]}]}]},
            "'id' must be of type .*, not True",
        ),
        (b"", "empty; expected questions: SQuAD"),
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
def test_every_text_of_an_answer_is_kept(tmp_path_factory, context, data):
    numbers = st.integers(-1, len(context) + 1)
    spans = data.draw(st.lists(st.tuples(numbers, numbers, st.booleans())))
    answers = [{"text": context[a:b] + "?" * wrong, "answer_start": a} for a, b, wrong in spans]
    path = tmp_path_factory.mktemp("squad") / "squad.json"
    item = {"context": context, "qas": [{"id": "q", "question": "?", "answers": answers}]}
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [item]}]}), encoding="utf-8")
    (paragraph,) = read_squad(path)
    assert paragraph.text == context
    told = tuple((answer["text"], answer["answer_start"]) for answer in answers if trimmed(answer["text"]))
    assert [question.answers for question in paragraph.questions] == ([told] if told or not answers else [])
