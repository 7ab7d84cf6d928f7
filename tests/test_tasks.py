# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import csv
import gzip
import io
import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btr_haystack.errors import DataError
from btr_haystack.tasks import (
    TASKS,
    Item,
    WikiPassage,
    choice_accuracy,
    label_accuracy,
    open_exact_match,
    question_of,
    read_dpr,
    read_fever,
    read_mmlu,
    read_nq,
    read_passages,
    read_triviaqa,
    read_webquestions,
)

NQ = """\
{"question": "where does the movie the sound of music take place", "answer": ["Salzburg, Austria", "Austria"]}
{"question": "when does the good witch season 4 come out", "answer": ["April\\u00a029,\\u00a02018"]}
"""
NQ_ITEMS = [
    Item("1", "where does the movie the sound of music take place", ("Salzburg, Austria", "Austria")),
    Item("2", "when does the good witch season 4 come out", ("April\u00a029,\u00a02018",)),
]
QED = {
    "example_id": -4260008091319214858,
    "paragraph_text": "Louise Joy Brown ( born 25 July 1978 ) is an English woman .",
    "question_text": "when was the first in vitro baby born",
    "title_text": "Louise Brown",
    "answer_spans": [[24, 36]],
    "answer_text": ["25 July 1978"],
    "annotation": [],
    "answer_type": "single_sentence",
}
DPR = """\
who sings does he love me with reba\t['Linda Davis']
how many pages is invisible man by ralph ellison\t['581 ( second edition )']
who wrote "Mother's Day"\t"[""Mother's"", 'Gräfin']"
"""
DPR_ITEMS = [
    Item("1", "who sings does he love me with reba", ("Linda Davis",)),
    Item("2", "how many pages is invisible man by ralph ellison", ("581 ( second edition )",)),
    Item("3", 'who wrote "Mother\'s Day"', ("Mother's", "Gräfin")),
]
TRIVIAQA = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["Sunset Blvd", "West Sunset Boulevard", "Sunset Boulevard", "Sunset Blvd"],
                "NormalizedAliases": ["sunset blvd", "west sunset boulevard", "sunset boulevard"],
                "Type": "WikipediaEntity",
                "Value": "Sunset Boulevard",
            },
            "EntityPages": [{"DocSource": "TagMe", "Filename": "Andrew_Lloyd_Webber.txt"}],
            "Question": "Which Lloyd Webber musical premiered in the US on 10th December 1993?",
            "QuestionId": "tc_33",
            "QuestionSource": "http://www.triviacountry.com/",
            "SearchResults": [],
        }
    ],
    "Domain": "Web",
    "Version": 1.0,
}
TRIVIAQA_ITEMS = [
    Item(
        "tc_33",
        "Which Lloyd Webber musical premiered in the US on 10th December 1993?",
        ("Sunset Boulevard", "Sunset Blvd", "West Sunset Boulevard"),
    )
]
WEBQUESTIONS = [
    {
        "qId": "wqr000000",
        "answers": ["Jazmyn Bieber", "Jaxon Bieber"],
        "qText": "what is the name of justin bieber brother?",
    },
    {"qId": "wqr000840", "answers": ["93021", "93020"], "qText": "what is the zip code for moorpark ca?"},
]
STANFORD = [
    {
        "url": "http://www.freebase.com/view/en/justin_bieber",
        "targetValue": '(list (description "Jazmyn Bieber") (description "Jaxon Bieber"))',
        "utterance": "what is the name of justin bieber brother?",
    },
    {
        "url": "http://www.freebase.com/view/en/natalie_portman",
        "targetValue": '(list (description Abduction) (description 1881) (description "Valentine\'s Day (film)"))',
        "utterance": "what other movies?",
    },
]
FEVER = {
    "claim": "Ukrainian Soviet Socialist Republic was a founding participant of the UN.",
    "label": "SUPPORTS",
    "evidence": [
        "The United Nations -LRB- UN -RRB- is an intergovernmental organization .",
        "Mogadishu -LRB- -LSB- maqadi\u02d0\u0283u\u02d0 -RSB- ; \u0645\u0642\u062f -RRB- -LCB- -RCB-",
    ],
}
EVIDENCE = (
    "The United Nations ( UN ) is an intergovernmental organization . "
    "Mogadishu ( [ maqadi\u02d0\u0283u\u02d0 ] ; \u0645\u0642\u062f ) { }"
)
FEVER_ITEM = Item(
    "1",
    FEVER["claim"],
    ("SUPPORTS",),
    (EVIDENCE,),
)
MMLU = """\
"As of 2015, since 1990 forests have ____ in Europe and have ____ in Africa.","increased, increased","increased, decreased","decreased, increased",both,B
Question below refers to the following situation:,increase by two,increase by four,decrease to one half,drop to zero,D
"Which movie popularized the phrase ""You talkin' to me?""
(It is old.)",Ghost Busters,Taxi Driver,Joker,ملل,B
What is varicella?,a pasta,an opera,a virus,poetry,C
"""  # noqa: E501
MMLU_ITEMS = [
    Item(
        "misc/1",
        "As of 2015, since 1990 forests have ____ in Europe and have ____ in Africa.",
        ("B",),
        (),
        ("increased, increased", "increased, decreased", "decreased, increased", "both"),
    ),
    Item(
        "misc/2",
        "Question below refers to the following situation:",
        ("D",),
        (),
        ("increase by two", "increase by four", "decrease to one half", "drop to zero"),
    ),
    Item(
        "misc/3",
        'Which movie popularized the phrase "You talkin\' to me?"\n(It is old.)',
        ("B",),
        (),
        ("Ghost Busters", "Taxi Driver", "Joker", "ملل"),
    ),
    Item("misc/4", "What is varicella?", ("C",), (), ("a pasta", "an opera", "a virus", "poetry")),
]
PASSAGES = (
    "id\ttext\ttitle\n"
    '1\t"Aaron Aaron ( or ; ""Ahärôn"") is a prophet, high priest, and the brother of Moses"\tAaron\n'
    '2\t"climax" of the line. 文字\tList of "Atlas Shrugged" characters\n'
    '3\t"Apulu as the patron\t"Hello, World!" program\n'
)
WIKI_PASSAGES = [
    WikiPassage("1", 'Aaron Aaron ( or ; "Ahärôn") is a prophet, high priest, and the brother of Moses', "Aaron"),
    WikiPassage("2", '"climax" of the line. 文字', 'List of "Atlas Shrugged" characters'),
    WikiPassage("3", '"Apulu as the patron', '"Hello, World!" program'),
]


def passages(path):
    return list(read_passages(path))


READERS = [
    (read_nq, NQ, NQ_ITEMS),
    (read_nq, DPR, DPR_ITEMS),
    (read_dpr, DPR, DPR_ITEMS),
    (read_triviaqa, json.dumps(TRIVIAQA, indent=2), TRIVIAQA_ITEMS),
    (read_triviaqa, DPR, DPR_ITEMS),
    (read_webquestions, DPR, DPR_ITEMS),
    (read_fever, json.dumps(FEVER), [FEVER_ITEM]),
    (read_mmlu, MMLU, MMLU_ITEMS),
    (passages, PASSAGES, WIKI_PASSAGES),
]
EACH = pytest.mark.parametrize(
    "read", [read_nq, read_dpr, read_triviaqa, read_webquestions, read_fever, read_mmlu, passages]
)


@pytest.fixture
def write(tmp_path):
    def write(content, name="misc_test.csv"):
        path = tmp_path / name
        if isinstance(content, list | dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(("read", "content", "expected"), READERS)
def test_reads_its_file_plain_and_compressed_by_content(write, read, content, expected):
    data = content.encode()
    assert read(str(write(data))) == expected
    assert read(write(gzip.compress(data, mtime=0))) == expected
    assert read(write(data, "misc_test.csv.gz")) == expected


@pytest.mark.parametrize(("read", "content", "expected"), READERS)
def test_reads_a_byte_order_mark_line_ends_of_windows_and_no_last_line_end(write, read, content, expected):
    assert read(write(b"\xef\xbb\xbf" + content.encode())) == expected
    assert read(write(content.removesuffix("\n"))) == expected
    if read is not read_mmlu:  # there a line end is part of a question
        assert read(write(content.replace("\n", "\r\n"))) == expected


@pytest.mark.parametrize(("read", "content", "expected"), READERS)
def test_blank_lines_are_passed_over(write, read, content, expected):
    found = read(write("\n \r\n" + content + "\n\n"))
    assert [getattr(one, "question", one) for one in found] == [getattr(one, "question", one) for one in expected]


@EACH
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", gzip.compress(b"", mtime=0)])
def test_empty_files_are_refused(write, read, content):
    path = write(content)
    with pytest.raises(DataError, match="empty; expected") as caught:
        read(path)
    assert str(path) in str(caught.value)


@EACH
def test_missing_files_and_damaged_files_are_refused(write, tmp_path, read):
    with pytest.raises(DataError, match=r"nowhere\.tsv: no such file"):
        read(tmp_path / "nowhere.tsv")
    with pytest.raises(DataError, match=r"misc_test\.csv: cannot be read"):
        read(write(gzip.compress(PASSAGES.encode() * 9, mtime=0)[:60]))
    with pytest.raises(DataError, match=r"misc_test\.csv: cannot be read"):
        read(write(b"\x1f\x8bnot really"))


@EACH
def test_text_that_is_not_utf8_is_refused_with_its_line(write, read):
    header = {passages: b"id\ttext\ttitle\n", read_mmlu: b"q,1,2,3,4,A\n"}.get(read, b"\n")
    with pytest.raises(DataError, match=r"misc_test\.csv: text in UTF-16"):
        read(write("\ufeffwho?".encode("utf-16-le")))
    with pytest.raises(DataError, match=r"misc_test\.csv, line 2: expected UTF-8, found the byte 0xe4"):
        read(write(header + b"Gr\xe4fin"))


@pytest.mark.parametrize("read", [read_nq, read_dpr, read_triviaqa, read_webquestions, read_fever, passages])
def test_a_folder_is_no_file(tmp_path, read):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


# Natural Questions


def test_nq_reads_the_key_of_other_editions_and_ids(write):
    lines = '{"question": "who?", "answers": ["I"], "id": "dev_7"}\n{"question": "why?", "answer": ["so"], "id": 8}'
    assert read_nq(write(lines)) == [Item("dev_7", "who?", ("I",)), Item("8", "why?", ("so",))]


def test_nq_keeps_questions_without_answers(write):
    assert read_nq(write('{"question": "who?", "answer": ["", " "]}')) == [Item("1", "who?", ())]
    assert read_nq(write('{"question": "who?", "answer": []}')) == [Item("1", "who?", ())]


def test_nq_splits_lines_at_line_feeds_only(write):
    line = json.dumps({"question": "who\u2028or\x85what?", "answer": ["文字"]}, ensure_ascii=False)
    assert read_nq(write(line)) == [Item("1", "who\u2028or\x85what?", ("文字",))]


def test_nq_reads_a_huge_line(write):
    answers = [str(number) for number in range(100_000)]
    assert read_nq(write({"question": "how many?" * 100_000, "answer": answers}))[0].answers == tuple(answers)


def test_qed_gives_the_paragraph(write):
    expected = Item(
        str(QED["example_id"]), QED["question_text"], ("25 July 1978",), (QED["paragraph_text"],), starts=(24,)
    )
    assert read_nq(write(QED)) == [expected]


def test_qed_answers_are_kept_whatever_their_place(write, caplog):
    answers = {"answer_text": ["25 July 1978", "25 july 197"], "answer_spans": [[24, 36], [-24, 36]]}
    spans = [[], [[]], [7], None, [["a", "b"]]]
    lines = [QED | answers, *(QED | {"answer_spans": one} for one in spans), QED | {"answer_text": []}]
    items = read_nq(write("\n".join(map(json.dumps, lines))))
    assert [(item.answers, item.starts) for item in items] == [
        (("25 July 1978", "25 july 197"), (24, -1)), *[(("25 July 1978",), (-1,))] * len(spans), ((), ()),
    ]  # fmt: skip
    assert not caplog.records


def test_qed_questions_with_blank_answers_are_left_out_with_one_warning(write, caplog):
    blank = [QED | {"answer_text": [""], "answer_spans": [[-1, -1]]}, QED | {"answer_text": [" \u200b"]}]
    assert len(read_nq(write("\n".join(map(json.dumps, [*blank, QED]))))) == 1
    (record,) = caplog.records
    assert "misc_test.csv: left out 2 questions with nothing but blank answers" in record.getMessage()


CTXS = {
    "id": 7,
    "question": "who won",
    "target": "Marie Curie",
    "answers": ["M. Curie", "Marie Curie"],
    "ctxs": [
        {"id": "1", "title": "Nobel Prize", "text": "Marie Curie won.", "score": "82.1", "has_answer": True},
        {"id": "2", "title": None, "text": "Nobody won.", "score": 80.3},
    ],
}
CTXS_ITEM = Item(
    "7", "who won", ("Marie Curie", "M. Curie"), ("Marie Curie won.", "Nobody won."),
    titles=("Nobel Prize", ""), retrieved=True,
)  # fmt: skip
ANY_OPEN = pytest.mark.parametrize("read", [read_nq, read_triviaqa, read_webquestions])


@ANY_OPEN
@pytest.mark.parametrize("indent", [None, 1])
def test_dpr_and_fid_bring_their_passages(write, read, indent):
    other = CTXS | {"id": None, "ctxs": [], "target": None}
    expected = [CTXS_ITEM, Item("2", "who won", ("M. Curie", "Marie Curie"))]
    for content in ([CTXS, other], {"data": [CTXS, other]}):
        text = json.dumps(content, indent=indent)
        assert read(write(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))) == expected
    assert read(write("\n".join(map(json.dumps, [CTXS, other])))) == expected
    only = {key: CTXS[key] for key in ("id", "question", "target", "ctxs")}
    assert read(write(only))[0].answers == ("Marie Curie",)


def test_passages_of_dprs_training_files(write):
    """Those that have the answer come first."""
    one = {"title": "T", "text": "a", "passage_id": "1"}
    content = {"dataset": "nq", "question": "who won", "answers": ["I"], "negative_ctxs": [one | {"text": "c"}]}
    content |= {"positive_ctxs": [one], "hard_negative_ctxs": [one | {"text": "b"}]}
    assert read_nq(write([content]))[0].passages == ("a", "b", "c")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("text", r"line 1\.ctxs\[0\]: expected .*, found 'text'$"),
        ({"title": "T"}, r"line 1\.ctxs\[0\]: expected .*, found \{'title': 'T'\}$"),
    ],
)
def test_passages_of_another_form_are_named(write, one, message):
    with pytest.raises(DataError, match=message):
        read_nq(write(CTXS | {"ctxs": [one]}))
    with pytest.raises(DataError, match=r"line 1: the value of 'ctxs' is 'text'; expected a list$"):
        read_nq(write(CTXS | {"ctxs": "text"}))


@ANY_OPEN
def test_rows_of_the_library_datasets(write, read, tmp_path):
    squad = {"id": "s", "title": "T", "context": "I won.", "question": "who?", "answers": {"text": ["I"]}}
    gold = Item("s", "who?", ("I",), ("I won.",), starts=(-1,), titles=("T",))
    assert read(write(json.dumps(squad))) == [gold]
    article = {"title": "T", "paragraphs": [{"context": "I won.", "qas": [squad | {"answers": [{"text": "I"}]}]}]}
    assert read(write({"data": [article]})) == [gold]
    answer = {"value": "Sunset Boulevard", "aliases": ["Sunset Blvd", "Sunset Boulevard"], "type": "WikipediaEntity"}
    trivia = {"question": "which?", "question_id": "tc_33", "answer": answer, "entity_pages": {}}
    assert read(write([trivia])) == [Item("tc_33", "which?", ("Sunset Boulevard", "Sunset Blvd"))]
    rows = [{"url": "x", "question": "what?", "answers": ["Jazmyn", "Jaxon"]}]
    assert read(write(rows)) == [Item("1", "what?", ("Jazmyn", "Jaxon"))]
    path = tmp_path / "rows.json"
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    assert read(path) == [Item("1", "what?", ("Jazmyn", "Jaxon"))]


def test_forms_may_stand_side_by_side_but_for_claims(write):
    assert len(read_nq(write("\n".join(map(json.dumps, [CTXS, QED, {"question": "who?", "answer": ["I"]}]))))) == 3
    with pytest.raises(DataError, match=r"line 2: found the keys 'claim', 'label', 'evidence', as of FEVER .*expected"):
        read_nq(write(json.dumps(CTXS) + "\n" + json.dumps(FEVER)))


def test_correct_files_give_no_warning(write, caplog):
    read_nq(write(QED))
    read_nq(write(NQ))
    assert not caplog.records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "who?"}', "line 3: found the keys 'question'; expected questions alone, as of NQ-open"),
        ("{}", "line 3: found {}; expected questions alone"),
        ("7", "line 3: found 7; expected questions alone"),
        ("{'question'", "line 3: not JSON: Expecting property name enclosed in double quotes at column 2$"),
        ("1" * 5000, "line 3: not JSON: Exceeds the limit"),
        ("[" * 100_000, "line 3: not JSON: "),
        ('{"question": " ", "answer": ["I"]}', "line 3: the value of 'question' is ' '; expected a text$"),
        ('{"question": 7, "answer": ["I"]}', "line 3: the value of 'question' is 7; expected a text$"),
        ('{"question": "who?", "answer": "I"}', "line 3: the value of 'answer' is 'I'; expected a list$"),
        ('{"question": "who?", "answer": [7]}', r"line 3: the value of 'answer' is \[7\]; expected a list of texts$"),
        ('{"question": "who?", "answer": null}', "line 3: the value of 'answer' is None; expected a list$"),
        (
            '{"question": "who?", "answer": [], "id": true}',
            "line 3: the value of 'id' is True; expected a text or a number$",
        ),
        (
            json.dumps(QED | {"answer_text": [7]}),
            r"line 3: the value of 'answer_text' is \[7\]; expected a list of texts$",
        ),
        (json.dumps(QED | {"paragraph_text": ""}), "line 3: the value of 'paragraph_text' is ''; expected a text$"),
    ],
)
def test_nq_names_what_is_wrong_and_where(write, line, message):
    with pytest.raises(DataError, match=r"misc_test\.csv, " + message):
        read_nq(write(json.dumps(QED) + "\n\n" + line))


# DPR


def test_dpr_reads_quoted_fields_and_tabs(write):
    lines = '"""Quoted"" and\ttab"\t[\'a\']\n"Not quoted" at all\t ["b"] \n"whole"\t"[\'""c""\', \'d\\te\']"'
    assert read_dpr(write(lines)) == [
        Item("1", '"Quoted" and\ttab', ("a",)),
        Item("2", '"Not quoted" at all', ("b",)),
        Item("3", "whole", ('"c"', "d\te")),
    ]
    assert read_dpr(write("who?\t[]\nwhy?\t['']")) == [Item("1", "who?", ()), Item("2", "why?", ())]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("who is it?", "expected a question, a tab and a list of answers, found 'who is it"),
        ("\t['I']", "expected a question, a tab and a list of answers, found"),
        ("who\tis it?\t['I']", "expected a question, a tab and a list of answers, found"),
        ("who?\t['I'", "expected a Python list of answers, found \"\\['I'\"$"),
        ("who?\t", "expected a Python list of answers, found ''$"),
        ("who?\t['I', null]", "expected a Python list of answers"),
        ("who?\t[open('x')]", "expected a Python list of answers"),
        ("who?\t" + "[" * 10_000, "expected a Python list of answers"),
        ("who?\t" + "-" * 5_000 + "1", "expected a Python list of answers"),
        ("who?\t[\0]", "expected a Python list of answers"),
        ("who?\t'I'", "the value of 'answers' is 'I'; expected a list of texts$"),
        ("who?\t['I', 7]", r"the value of 'answers' is \['I', 7\]; expected a list of texts$"),
    ],
)
def test_dpr_names_what_is_wrong_and_where(write, line, message):
    with pytest.raises(DataError, match=r"misc_test\.csv, line 3: " + message):
        read_dpr(write(f"who?\t['I']\n\n{line}\n"))


TEXTS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))
NOT_BLANK = TEXTS.filter(str.strip)


def table(rows, quoting):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t", quoting=quoting).writerows(rows)
    return file.getvalue().encode()


@settings(deadline=None)
@given(
    st.lists(st.tuples(NOT_BLANK, st.lists(NOT_BLANK)), min_size=1, max_size=4),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_dpr_reads_what_python_writes(tmp_path_factory, rows, quoting):
    path = tmp_path_factory.getbasetemp() / "dpr.csv"
    path.write_bytes(table(rows, quoting))
    assert [(item.question, list(item.answers)) for item in read_dpr(path)] == rows


# TriviaQA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Question": None}, r"Data\[0\]: the value of 'Question' is None; expected a text$"),
        ({"QuestionId": 7}, r"Data\[0\]: the value of 'QuestionId' is 7; expected a text$"),
        ({"Answer": "Oslo"}, r"Data\[0\]: the value of 'Answer' is 'Oslo'; expected an object$"),
        ({"Answer": {"Value": "Oslo"}}, r"Data\[0\]\.Answer: the key 'Aliases' is missing; found 'Value'$"),
        ({"Answer": {"Aliases": []}}, r"Data\[0\]\.Answer: the key 'Value' is missing; found 'Aliases'$"),
        (
            {"Answer": {"Value": "Oslo", "Aliases": [7]}},
            r"Data\[0\]\.Answer: the value of 'Aliases' is \[7\]; expected a list of texts$",
        ),
    ],
)
def test_triviaqa_names_what_is_wrong_and_where(write, change, message):
    with pytest.raises(DataError, match=r"misc_test\.csv: " + message):
        read_triviaqa(write({"Data": [TRIVIAQA["Data"][0] | change]}))


def test_triviaqa_refuses_other_json(write):
    with pytest.raises(DataError, match=r"line 1: found the keys 'dada'; expected .*TriviaQA"):
        read_triviaqa(write({"dada": []}))
    with pytest.raises(DataError, match="empty; expected questions"):
        read_triviaqa(write({"Data": []}))
    with pytest.raises(DataError, match=r"misc_test\.csv, line 2: not JSON: .* at column 1"):
        read_triviaqa(write('{"Data":\n]'))
    with pytest.raises(DataError, match="empty; expected questions"):
        read_triviaqa(write([]))


# WebQuestions


def test_webquestions_reads_the_edition_with_ids(write):
    items = [Item(one["qId"], one["qText"], tuple(one["answers"])) for one in WEBQUESTIONS]
    assert read_webquestions(write(WEBQUESTIONS)) == items
    other = [{"questionText": one["qText"], "answers": one["answers"]} for one in WEBQUESTIONS]
    assert [(item.id, item.question) for item in read_webquestions(write(other))] == [
        ("1", items[0].question),
        ("2", items[1].question),
    ]


def test_webquestions_reads_the_original(write):
    assert read_webquestions(write(STANFORD)) == [
        Item("1", "what is the name of justin bieber brother?", ("Jazmyn Bieber", "Jaxon Bieber")),
        Item("2", "what other movies?", ("Abduction", "1881", "Valentine's Day (film)")),
    ]


@pytest.mark.parametrize(
    ("target", "answers"),
    [
        ("(list)", ()),
        ('(list (description ""))', ()),
        (r'(list (description "\"Weird Al\" Yankovic") (description "a\\b"))', ('"Weird Al" Yankovic', r"a\b")),
        ('(list (description "(description x)") (description Padmé Amidala ))', ("(description x)", "Padmé Amidala")),
        (" (list  (description 文字)\n(description b) ) ", ("文字", "b")),
    ],
)
def test_webquestions_reads_every_target(write, target, answers):
    assert read_webquestions(write([{"utterance": "what?", "targetValue": target}]))[0].answers == answers


@pytest.mark.parametrize(
    "target",
    ["Oslo", "(list (name Oslo))", "(list (description Oslo)", '(list (description "Oslo))', "(list (description))"],
)
def test_webquestions_refuses_other_targets(write, target):
    with pytest.raises(
        DataError, match=r"misc_test\.csv: \[0\]: the targetValue is .*; expected \(list \(description A\)"
    ):
        read_webquestions(write([{"utterance": "what?", "targetValue": target}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "empty; expected questions"),
        (["what?"], r"\[0\]: found 'what\?'; expected"),
        ([WEBQUESTIONS[0], {"qText": "what?"}], r"\[1\]: the key 'answers' is missing; found 'qText'$"),
        ([{"answers": []}], r"\[0\]: found the keys 'answers'; expected .*WebQuestions"),
        ([{"utterance": "what?"}], r"\[0\]: the key 'targetValue' is missing; found 'utterance'$"),
        ([{"utterance": "what?", "targetValue": []}], r"\[0\]: the value of 'targetValue' is \[\]; expected a text$"),
        ([{"qText": "what?", "answers": [1]}], r"\[0\]: the value of 'answers' is \[1\]; expected a list of texts$"),
        (
            [{"qText": "what?", "answers": [], "qId": 1.5}],
            r"\[0\]: the value of 'qId' is 1.5; expected a text or a number$",
        ),
    ],
)
def test_webquestions_names_what_is_wrong_and_where(write, content, message):
    with pytest.raises(DataError, match=r"misc_test\.csv: " + message):
        read_webquestions(write(content))


# FEVER


def test_fever_reads_a_list_and_null_for_evidence(write):
    claims = [FEVER, FEVER | {"id": 7, "evidence": None}]
    expected = [FEVER_ITEM, Item("7", FEVER["claim"], ("SUPPORTS",))]
    assert read_fever(write(json.dumps(claims, indent=2))) == expected


def test_fever_reads_the_files_of_fever_ai(write):
    original = {
        "id": 75397,
        "verifiable": "VERIFIABLE",
        "label": "refutes",
        "claim": "Aruba is the only ABC Island.",
        "evidence": [[[92206, 104971, "ABC_islands", 7]]],
    }
    unknown = original | {"id": 7, "label": "NOT ENOUGH INFO", "evidence": [[[1, None, None, None]]]}
    without = {key: original[key] for key in ("claim", "label")}
    assert read_fever(write("\n".join(map(json.dumps, [original, unknown, without])))) == [
        Item("75397", "Aruba is the only ABC Island.", ("REFUTES",)),
        Item("7", "Aruba is the only ABC Island.", ("NOT ENOUGH INFO",)),
        Item("3", "Aruba is the only ABC Island.", ("REFUTES",)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claim": ""}, "the value of 'claim' is ''; expected a text$"),
        ({"label": "TRUE"}, "the label is 'TRUE'; expected one of SUPPORTS, REFUTES, NOT ENOUGH INFO$"),
        ({"label": None}, "the value of 'label' is None; expected a text$"),
        ({"evidence": "The UN is old."}, "the value of 'evidence' is 'The UN is old.'; expected a list$"),
        ({"evidence": ["The UN is old.", 7]}, r"the value of 'evidence' is .*, 7\]; expected a list of texts$"),
    ],
)
def test_fever_names_what_is_wrong_and_where(write, change, message):
    with pytest.raises(DataError, match=r"misc_test\.csv, line 2: " + message):
        read_fever(write(f"{json.dumps(FEVER)}\n{json.dumps(FEVER | change)}"))


# MMLU


def test_mmlu_reads_indices_and_a_header(write):
    rows = [[one.question, *one.choices, str("ABCD".index(one.answers[0]))] for one in MMLU_ITEMS]
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["question", "choice0", "choice1", "choice2", "choice3", "answer"], *rows])
    assert read_mmlu(write(file.getvalue())) == MMLU_ITEMS


def test_mmlu_reads_a_folder(write, tmp_path):
    write(MMLU, "virology_test.csv")
    write(gzip.compress(MMLU.encode(), mtime=0), "anatomy_test.csv.gz")
    write(MMLU, "high_school_test_taking_val.csv")
    write("not read", "README.txt")
    write(b"\0\5\x16\7", "._virology_test.csv")
    (tmp_path / "dev").mkdir()
    ids = [item.id for item in read_mmlu(tmp_path)]
    subjects = ["anatomy", "high_school_test_taking", "virology"]
    assert ids == [f"{subject}/{number}" for subject in subjects for number in range(1, 5)]


def test_mmlu_names_the_subject_by_the_whole_name_of_other_files(write):
    assert read_mmlu(write(MMLU, "anatomy.txt"))[0].id == "anatomy.txt/1"


def test_mmlu_refuses_a_folder_without_files_or_with_two_of_a_subject(write, tmp_path):
    with pytest.raises(DataError, match="no csv file in this folder; expected one for each subject"):
        read_mmlu(tmp_path)
    write(MMLU, "anatomy_dev.csv")
    write(MMLU, "anatomy_test.csv.gz")
    with pytest.raises(DataError, match=r"both anatomy_dev\.csv and anatomy_test\.csv\.gz hold anatomy; expected one"):
        read_mmlu(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("who?,a,b,c,A", "found 5 columns; expected a question, 4 choices and the answer$"),
        ("who?\ta\tb\tc\td\tA", "found 1 columns; expected"),
        ("who?,a,b,c,d,E", r"the answer to 'who\?' is 'E'; expected one of ABCD or 0 to 3$"),
        ("who?,a,b,c,d,4", r"the answer to 'who\?' is '4'; expected"),
        ("question,choice0,choice1,choice2,choice3,answer", "the answer to 'question' is 'answer'; expected"),
        (" ,a,b,c,d,A", "the answer to ' ' is 'A'; expected"),
        ('"who?,a,b\n,c,d,A\n', "not csv: unexpected end of data$"),
        ('"who" is it?,a,b,c,d,A', "not csv: ',' expected after '\"'$"),
        ("w" * 200_000 + ",a,b,c,d,A", r"not csv: field larger than field limit \(131072\)$"),
    ],
)
def test_mmlu_names_what_is_wrong_and_where(write, row, message):
    with pytest.raises(DataError, match=r"misc_test\.csv, line 6: " + message):
        read_mmlu(write(MMLU + row))


# Wikipedia


def test_passages_need_no_header(write):
    assert passages(write("id 7\tA text.\tA title\n")) == [WikiPassage("id 7", "A text.", "A title")]


def test_passages_may_hold_tabs_within_quotes(write):
    assert passages(write('7\t"A\t""text"""\t"A\ttitle"')) == [WikiPassage("7", 'A\t"text"', "A\ttitle")]


def test_passages_come_one_at_a_time(write):
    path = write(PASSAGES + "a line that is wrong\n")
    assert list(islice(read_passages(path), 3)) == WIKI_PASSAGES
    with pytest.raises(DataError):
        list(read_passages(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("4\tA text.", r"found 2 fields: '4\\tA text.'$"),
        ("4\tA text.\tA title\tmore", "found 4 fields"),
        ('4\t"A text', "found 2 fields"),
        ("A text.", "found 1 fields: 'A text.'$"),
    ],
)
def test_passages_names_what_is_wrong_and_where(write, line, message):
    with pytest.raises(
        DataError, match=r"misc_test\.csv, line 5: expected a passage's id, text and title.*; " + message
    ):
        passages(write(PASSAGES + line))


def test_passages_refuses_other_columns_and_a_header_alone(write):
    with pytest.raises(DataError, match=r"line 1: expected a passage's id, text and title .*: 'id\\ttitle\\ttext'$"):
        passages(write("id\ttitle\ttext\n1\tOslo\tOslo is a town."))
    with pytest.raises(DataError, match="empty; expected passages"):
        passages(write("id\ttext\ttitle\n"))


def test_passages_refuses_a_file_without_line_ends(write):
    long = gzip.compress(b"1\tOslo\tOslo\n" + b"x" * (17 << 20), 1, mtime=0)
    with pytest.raises(DataError, match=r"line 2: longer than 16777216 bytes; expected one passage a line"):
        passages(write(long))
    assert len(passages(write("1\t" + "x" * (1 << 20) + "\tOslo"))[0].text) == 1 << 20


@settings(deadline=None)
@given(
    st.lists(st.tuples(NOT_BLANK.filter(lambda text: text != "id"), TEXTS, TEXTS), min_size=1, max_size=4),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.booleans(),
)
def test_passages_reads_what_python_writes(tmp_path_factory, rows, quoting, header):
    path = tmp_path_factory.getbasetemp() / "passages.tsv"
    path.write_bytes(table([("id", "text", "title")] * header + rows, quoting))
    assert passages(path) == [WikiPassage(*row) for row in rows]


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters='\n\r\t"', exclude_categories=["Cs"])), min_size=3, max_size=3)
)
def test_text_without_quotes_is_read_as_it_stands(tmp_path_factory, fields):
    path = tmp_path_factory.getbasetemp() / "plain.tsv"
    path.write_text("id\ttext\ttitle\n0\t0\t0\n" + "7" + "\t".join(fields), encoding="utf-8", newline="")
    assert passages(path)[1] == WikiPassage("7" + fields[0], *fields[1:])


# scores


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("salzburg austria", ("Salzburg, Austria", "Austria"), 1),
        ("the Remorseful Day", ('"The Remorseful Day"', "The Remorseful Day"), 1),
        ("April\u00a029, 2018", ("April\u00a029,\u00a02018",), 1),
        ("Salzburg", ("Salzburg, Austria", "Austria"), 0),
        ("", ("Poison",), 0),
        ("a", ("A", "letter A"), 1),  # where SQuAD's exact match drops the first answer
        ("", (), 0),
        ("the", (), 0),
    ],
)
def test_open_exact_match(prediction, answers, score):
    assert open_exact_match(prediction, Item("1", "?", answers)) == score


def test_open_exact_match_in_a_language():
    item = Item("1", "?", ("東京都。",))
    assert [open_exact_match("「東京 都」", item, language) for language in (None, "ja")] == [0, 1]


@given(st.text(), st.lists(st.text()))
def test_open_exact_match_accepts_each_answer_and_nothing_without_any(prediction, answers):
    item = Item("1", "?", tuple(answers))
    assert all(open_exact_match(answer, item) for answer in answers)
    assert not open_exact_match(prediction, Item("1", "?", ()))


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        *(
            (text, "SUPPORTS")
            for text in ("supports", "SUPPORTS.", "Supported", "true", "True.", "yes", " Yes! ", "the true")
        ),
        *((text, "REFUTES") for text in ("refutes", "REFUTES", "refuted", "false", "'False'", "no", "No.")),
        *((text, "NOT ENOUGH INFO") for text in ("NOT ENOUGH INFO", "not enough information.", "maybe")),
        *(
            (text, None)
            for text in ("", "not supported", "supports refutes", "unknown", "truely", "1", "no, yes", "ja")
        ),
    ],
)
def test_label_accuracy(prediction, label):
    scores = {
        one: label_accuracy(prediction, Item("1", "?", (one,))) for one in ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
    }
    assert scores == {one: float(one == label) for one in scores}
    assert label_accuracy(prediction, Item("1", "?", ())) == 0


@pytest.mark.parametrize("label", ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"])
def test_label_accuracy_ignores_case_as_the_scorer_of_fever_does(label):
    assert label_accuracy(label.lower(), Item("1", "?", (label,))) == 1


CHOICES = ("Vitamin B", "-1", "Vitamin A", "1")


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("C", "C"),
        (" c ", "C"),
        ("(d).", "D"),
        ("**B**", "B"),
        ("C. Vitamin B", "C"),
        ("Answer: B", "B"),
        ("The answer is (D), not B", "D"),
        ("vitamin  a.", "C"),  # the text of a choice goes before a letter in it
        ("Vitamin B", "A"),
        ("-1", "B"),
        ("1", "D"),
        ("Vitamin D", "D"),
        ("a vitamin", None),  # the article
        ("Battle", None),
        ("D'Artagnan", None),
        ("Hepatitis-B", None),
        ("B12", None),
        ("E", None),
        ("", None),
        ("vitamin", None),
    ],
)
def test_choice_accuracy(prediction, letter):
    scores = {one: choice_accuracy(prediction, Item("s/1", "?", (one,), (), CHOICES)) for one in "ABCD"}
    assert scores == {one: float(one == letter) for one in "ABCD"}


def test_choice_accuracy_accepts_a_text_that_two_choices_have():
    assert choice_accuracy("none", Item("s/1", "?", ("D",), (), ("None", "all", "some", "None"))) == 1
    assert choice_accuracy("none", Item("s/1", "?", ("B",), (), ("None", "all", "some", "None"))) == 0


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"))
def test_choice_accuracy_of_a_letter_is_that_of_the_official_script(prediction, answer):
    assert choice_accuracy(prediction, Item("s/1", "?", (answer,), (), CHOICES)) == float(prediction == answer)


# tasks


def test_question_of():
    assert question_of(Item("1", " who? ", ("I",))) == "who?"
    assert question_of(MMLU_ITEMS[3]) == "What is varicella?\nA. a pasta\nB. an opera\nC. a virus\nD. poetry"


@pytest.mark.parametrize(
    ("name", "content", "right", "metric_name"),
    [
        ("nq", NQ, "austria", "EM"),
        ("triviaqa", json.dumps(TRIVIAQA), "sunset blvd", "EM"),
        ("webquestions", json.dumps(WEBQUESTIONS), "Jaxon Bieber", "EM"),
        ("fever", json.dumps(FEVER), "true", "accuracy"),
        ("mmlu", MMLU, "B", "accuracy"),
    ],
)
def test_each_task_reads_asks_and_scores(write, name, content, right, metric_name):
    task = TASKS[name]
    item = task.read(write(content))[0]
    assert item.question in task.prompt.replace("{query}", question_of(item))
    assert task.prompt.count("{query}") == 1
    assert (task.metric(right, item), task.metric("something else", item)) == (1.0, 0.0)
    assert task.metric_name == metric_name


def test_there_are_five_tasks():
    assert list(TASKS) == ["nq", "triviaqa", "webquestions", "fever", "mmlu"]
