# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Question and passage as one text, as Fusion-in-Decoder models were trained: what the encoder is given."""

from unittest.mock import patch

import pytest
from conftest import make_tokenizer, passage
from haystack import Document, Pipeline
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from btr_haystack import BTRForConditionalGeneration, GenerativeReader
from btr_haystack.default import default_model_path
from btr_haystack.errors import ModelError
from btr_haystack.row_form import Part, RowForm, tokenised
from btr_haystack.windows import tokenise
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader

PROMPT, TEMPLATE = "question: {query}", "title: {title} context: {content}"
ONE = {"max_new_tokens": 1}
QUERY = "What is the capital of Norway?"
TOKENIZER = make_tokenizer("t5")


@pytest.fixture(scope="module")
def t5_tokenizer():
    """T5's own, with its 100 sentinels."""
    return AutoTokenizer.from_pretrained(default_model_path())


@pytest.fixture
def rows(monkeypatch):
    """Token ids of the rows that encoders are given, without padding."""
    given, joint = [], BTRForConditionalGeneration.joint

    def note(model, ids, mask):
        given.extend(row[:length] for row, length in zip(ids.tolist(), mask.sum(1).tolist(), strict=True))
        return joint(model, ids, mask)

    monkeypatch.setattr(BTRForConditionalGeneration, "joint", note)
    return given


def fid(folder, **settings):
    return BTRGenerativeReader(
        folder, **{"prompt": PROMPT, "passage_template": TEMPLATE, "generation_kwargs": ONE, **settings}
    )


def titled(content, title="Norway"):
    return Document(content=content, meta={"title": title})


def ids_of(tokenizer, prompt, template, query, content, **fields):
    return tokenised(tokenizer, [RowForm.of(prompt, template).filled(query, content, fields)])[0].ids.tolist()


def test_fids_published_example(t5_tokenizer):
    question = "What element did Marie Curie name after her native land?"
    text = 'them on visits to Poland. She named the first chemical element that she discovered in 1898 "polonium"'
    whole = f"question: {question} title: Marie Curie context: {text}"
    ids = ids_of(t5_tokenizer, PROMPT, TEMPLATE, question, text, title="Marie Curie")
    assert [*ids, t5_tokenizer.eos_token_id] == t5_tokenizer(whole)["input_ids"]


def test_atlas_sentinel_is_one_where_the_prompt_names_it(t5_tokenizer):
    prompt = "question: {query} answer: <extra_id_0>"
    whole = "question: who? answer: <extra_id_0> title: Mainz context: A town on the Rhine."
    ids = ids_of(t5_tokenizer, prompt, TEMPLATE, "who?", "A town on the Rhine.", title="Mainz")
    assert ids == t5_tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert ids.count(t5_tokenizer.convert_tokens_to_ids("<extra_id_0>")) == 1
    odd = "<extra_id_0> </s> {title} %s"  # in texts they are what they are in any other text
    expected = tokenise(t5_tokenizer, [f"question: {odd} answer: ", f" title: {odd} context: {odd}"])
    sentinel = t5_tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert ids_of(t5_tokenizer, prompt, TEMPLATE, odd, odd, title=odd) == [*expected[0], sentinel, *expected[1]]


@given(*[st.text(max_size=30)] * 3, st.integers(0, 5), st.integers(0, 30))
def test_any_texts_are_tokenised_as_one_and_windows_lose_nothing(query, title, content, stride, more):
    [row] = tokenised(TOKENIZER, [RowForm.of(PROMPT, TEMPLATE).filled(query, content, {"title": title})])
    [whole] = tokenise(TOKENIZER, [f"question: {query} title: {title} context: {content}"])
    assert row.ids.tolist() == whole
    around = len(whole) - row.count(Part.CONTENT)
    room = around + stride + 1 + more
    found = row.windows(room, stride)
    assert max(map(len, found)) <= room
    before = list(row.parts).index(Part.CONTENT) if row.count(Part.CONTENT) else len(whole)
    contents = [one[before:] for one in found]
    assert [one[:before] for one in found] == [whole[:before]] * len(found)
    assert contents[0] + [token for one in contents[1:] for token in one[stride:]] == whole[before:]


def test_the_encoder_is_given_one_text_with_one_separator_at_its_end(seq2seq, rows):
    reader = fid(seq2seq)
    documents = [titled(passage(number), f"Title {number}") for number in range(4)]
    out = reader.run(QUERY, documents)
    texts = [f"question: {QUERY} title: Title {n} context: {passage(n)}" for n in range(4)]
    assert sorted(rows) == sorted(AutoTokenizer.from_pretrained(seq2seq)(texts)["input_ids"])
    [answer] = out["answers"]
    assert (answer.query, answer.documents) == (QUERY, documents)
    engine = GenerativeReader.from_pretrained(seq2seq)
    form = RowForm.of(PROMPT, TEMPLATE)
    [[same]] = engine.write_jointly(
        [QUERY], [passage(n) for n in range(4)], form=form, fields=[one.meta for one in documents], **ONE
    )
    assert answer.data == same.text


def test_without_a_template_query_and_content_stay_a_pair(seq2seq, rows):
    BTRGenerativeReader(seq2seq, prompt=PROMPT, generation_kwargs=ONE).run(QUERY, [titled(passage(1))])
    assert rows == [AutoTokenizer.from_pretrained(seq2seq)(f"question: {QUERY}", passage(1))["input_ids"]]


def test_windows_of_a_long_document_hold_question_and_title(seq2seq, rows, long_document):
    content = long_document.content
    fid(seq2seq, passage_template=TEMPLATE + " end", max_seq_length=200, stride=20).run(QUERY, [titled(content)])
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    [whole] = tokenise(tokenizer, [f"question: {QUERY} title: Norway context: {content} end"])
    before = len(tokenise(tokenizer, [f"question: {QUERY} title: Norway context: {content[0]}"])[0]) - 1
    end = tokenizer(" end")["input_ids"]
    in_order = sorted(rows, key=lambda row: _place(whole, row[before : -len(end)]))
    assert len(rows) > 5
    assert max(map(len, rows)) == 200
    assert all(row[:before] == whole[:before] and row[-len(end) :] == end for row in rows)
    contents = [row[before : -len(end)] for row in in_order]
    assert contents[0] + [token for one in contents[1:] for token in one[20:]] == whole[before : 1 - len(end)]


def _place(whole, part):
    return next(i for i in range(len(whole)) if whole[i : i + len(part)] == part)


def test_a_long_query_and_long_fields_leave_room(seq2seq, rows, long_document, caplog):
    """The query is cut, the fields are cut, prompt and template are not; a row that fits is left whole."""
    settings = {"prompt": "question: {query} answer:", "max_seq_length": 120, "stride": 50}
    documents = [titled("Oslo"), titled(long_document.content[:900], "title " * 60)]
    fid(seq2seq, **settings).run("why " * 100, documents)
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    assert max(map(len, rows)) == 120
    texts = [tokenizer.decode(row) for row in rows]
    assert all("question:" in text and "answer: title:" in text and "context:" in text for text in texts)
    assert [one.split(" has ")[0] for one in caplog.messages if "cut" in one] == [
        "The query",
        "The passage template's text beside the content",
    ]
    rows.clear()
    caplog.clear()
    fid(seq2seq, **settings).run("why " * 15, [titled("Oslo")])
    assert rows == tokenizer([f"question: {'why ' * 15} answer: title: Norway context: Oslo"])["input_ids"]
    assert not [one for one in caplog.messages if "cut" in one]
    with pytest.raises(ValueError, match="the stride must be from 0 to less than that"):
        fid(seq2seq, prompt="question: " * 20 + "{query}", max_seq_length=60, stride=8).run(QUERY, documents)


def test_what_a_document_lacks_is_told_once(seq2seq, rows, caplog):
    documents = [titled("Oslo"), Document(content="Bergen"), titled("Bread", None), titled("Tin", 3.5)]
    fid(seq2seq, passage_template="{title}, {section page}: {content}").run(QUERY, documents)
    [told] = [one for one in caplog.messages if "lack" in one]
    assert "{title} in 2 of 4 documents, {section page} in 4 of 4 documents" in told
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    texts = [f"question: {QUERY} {rest}" for rest in ("Norway, : Oslo", ", : Bergen", ", : Bread", "3.5, : Tin")]
    assert sorted(rows) == sorted(tokenizer(texts)["input_ids"])
    caplog.clear()
    fid(seq2seq).run(QUERY, [titled("Oslo"), titled("Tin", "")])
    assert "lack" not in caplog.text


def test_braces_in_texts_are_text(seq2seq, rows):
    odd = "{title} {content.__class__} {0} }{ {{x}} %s {query}"
    fid(seq2seq, passage_template="{{t}} {title} {content}").run(odd, [titled(odd, odd)])
    assert rows == AutoTokenizer.from_pretrained(seq2seq)([f"question: {odd} {{t}} {odd} {odd}"])["input_ids"]


def test_odd_documents(seq2seq, rows):
    reader = fid(seq2seq)
    odd = [Document(content=None), Document(content=""), Document(id="odd", content="\ud800 日本"), titled(" \n")]
    assert reader.run(QUERY, odd)["answers"][0].documents == odd[2:]
    assert len(rows) == 2
    assert reader.run("", odd)["answers"]
    assert reader.run(QUERY, odd[:2])["answers"] == reader.run(QUERY, [])["answers"] == []


def test_settings_are_saved(seq2seq):
    reader = fid(seq2seq, max_seq_length=200, stride=20)
    assert reader.to_dict()["init_parameters"]["passage_template"] == TEMPLATE
    pipeline = Pipeline()
    pipeline.add_component("reader", reader)
    again = Pipeline.loads(pipeline.dumps())
    assert again.get_component("reader").to_dict() == reader.to_dict()
    given = {"reader": {"query": QUERY, "documents": [titled(passage(2))]}}
    with patch.object(GenerativeReader, "write_jointly", autospec=True, return_value=[[]]) as write:
        again.run(given)
    assert write.call_args.kwargs["form"] == RowForm.of(PROMPT, TEMPLATE)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("", "expected {content} in it, once"),
        ("title: {title}", "expected {content} in it, once"),
        ("{content} {content}", "expected {content} in it, once"),
        ("{{content}}", "expected {content} in it, once"),
        ("{content.__class__}", "without attributes, indexes or formats"),
        ("{title[0]} {content}", "without attributes, indexes or formats"),
        ("{content!r}", "without attributes, indexes or formats"),
        ("{content:>9}", "without attributes, indexes or formats"),
        ("{} {content}", "more than a name in braces, or none"),
        ("{query} {content}", "which belongs into the prompt"),
        ("{content", "for braces that are text"),
        ("} {content}", "for braces that are text"),
    ],
)
def test_templates_that_are_refused(template, told):
    with pytest.raises(ValueError) as error:
        BTRGenerativeReader("any", passage_template=template)
    assert told in str(error.value)
    assert repr(template) in str(error.value)


def test_refusals(generative, seq2seq):
    for wrong in (7, b"{content}", ["{content}"]):
        with pytest.raises(TypeError, match=r"expected a text such as 'title: \{title\} context: \{content\}'"):
            BTRGenerativeReader("any", passage_template=wrong)
    with pytest.raises(ValueError, match=r"expected a text with \{query\}"):
        RowForm.of("question:", TEMPLATE)
    with pytest.raises(ModelError, match=r"tiny-generative has a split \(k = 2\): passages .* content alone"):
        fid(generative).warm_up()
    with pytest.raises(ValueError, match=r"there is a token store: passages .* content alone"):
        fid(None, token_store=BinaryTokenStore(generative, "memory://"))
    for name in ("form", "fields"):
        with pytest.raises(ValueError, match=f"has '{name}', which the reader sets itself: use passage_template"):
            BTRGenerativeReader(seq2seq, generation_kwargs={name: None})
