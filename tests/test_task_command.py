# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr evaluate --task` on small files of the tasks' real formats."""

import json
from dataclasses import replace

import pytest
from conftest import SENTENCES
from haystack import Document, GeneratedAnswer
from transformers import AutoTokenizer

from btr_cli import tasks
from btr_cli.tasks import TaskSettings, evaluate_task
from btr_haystack.errors import DataError
from btr_haystack.tasks import TASKS, Item, question_of
from haystack_integrations.components.readers.btr import BTRGenerativeReader

QUESTIONS = [("what is the capital of norway", ["Oslo"]), ("who was awarded the nobel prize", ["Marie Curie", "Curie"])]


@pytest.fixture
def nq(tmp_path):
    """NQ-open and passages as DPR cuts them."""
    questions, passages = tmp_path / "nq.jsonl", tmp_path / "psgs.tsv"
    questions.write_text(
        "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in QUESTIONS), encoding="utf-8"
    )
    lines = [f"{number}\t{text}\tTitle {number}" for number, text in enumerate(SENTENCES, 1)]
    passages.write_text("\n".join(["id\ttext\ttitle", *lines]) + "\n", encoding="utf-8")
    return questions, passages


def settings_for(task, data, models, **changes):
    given = {"passages": None, "teacher": None, "writes": False, "sample": None, "seed": 0, "top_k": 3} | changes
    given.setdefault("prompt", TASKS[task].prompt)
    return TaskSettings(task=task, data=str(data), models=tuple(map(str, models)), **given)


def test_found_answers(nq, split_reader, plain_reader, tmp_path):
    data, passages = nq
    output, teacher = tmp_path / "figures.json", str(plain_reader("bert"))
    settings = settings_for("nq", data, [split_reader()], teacher=teacher, passages=str(passages))
    rows = evaluate_task(settings, output)
    assert [row["teacher"] for row in rows] == [True, False]
    for row in rows:
        assert (row["questions"], row["metric"], row["task"]) == (2, "EM", "nq")
        assert 0 <= row["value"] <= 100
        assert row["passages"] <= 3
    assert rows[0]["bytes_a_token"] is None
    assert rows[1]["bytes_a_token"] > 2
    assert json.loads(output.read_text(encoding="utf-8"))["rows"] == rows
    assert (tmp_path / "figures.md").read_text(encoding="utf-8").count("| EM |") == 2
    assert len((tmp_path / "figures.answers.jsonl").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 2
    assert evaluate_task(settings, output) == rows  # bytes are those of the first run: nothing is read again
    passages.write_text(passages.read_text(encoding="utf-8") + "99\tOne more.\tTitle\n", encoding="utf-8")
    with pytest.raises(DataError, match="answers of another run"):
        evaluate_task(settings, output)


def test_a_joint_reader_keeps_nothing(nq, plain_reader, split_reader, tmp_path):
    data, passages = nq
    settings = settings_for("nq", data, [plain_reader("bert")], passages=str(passages))
    assert [row["bytes_a_token"] for row in evaluate_task(settings, None)] == [None]
    url = f"sqlite:///{tmp_path}/passages.db"
    two = [split_reader(), split_reader(bits=24)]
    with pytest.raises(ValueError, match=r"a store belongs to one model, not to .*: give one"):
        evaluate_task(settings_for("nq", data, two, passages=str(passages), store=url), None)
    with pytest.raises(ValueError, match="reads question and passage jointly and keeps nothing: leave out --store"):
        evaluate_task(replace(settings, store=url), None)


def test_what_counts_as_right(nq, split_reader, monkeypatch, tmp_path):
    data, passages = nq
    settings = settings_for("nq", data, [split_reader()], passages=str(passages))
    monkeypatch.setattr(tasks.BTRReader, "run", lambda self, query, documents: {
        "answers": [GeneratedAnswer("the Oslo!", query, documents, {"score": 0.0})], "cache": {"hits": 1, "misses": 2},
    })  # fmt: skip
    [row] = evaluate_task(settings, None)
    assert row["value"] == 50
    assert 0 <= row["hits"] < 1  # some passage came first
    url = f"sqlite:///{tmp_path}/store.db"
    rows = [evaluate_task(replace(settings, store=url), None)[0] for _ in range(2)]
    assert rows[0]["hits"] < rows[1]["hits"] == 1


@pytest.fixture
def fid(tmp_path):
    """FiD's form: each question with what a retriever found for it."""
    ctxs = [{"id": str(n), "title": f"Title {n}", "text": text} for n, text in enumerate(SENTENCES)]
    rows = [
        {"question": q, "target": a[0], "answers": a, "ctxs": ctxs[::step]}
        for (q, a), step in zip(QUESTIONS, (1, -1), strict=True)
    ]
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def test_passages_that_come_with_the_questions_are_read_in_their_order(fid, nq, split_reader, monkeypatch, caplog):
    read = []
    monkeypatch.setattr(tasks.BTRReader, "run", lambda self, query, documents: read.append(documents) or {
        "answers": [], "cache": {"hits": 0, "misses": len(documents)},
    })  # fmt: skip
    settings = settings_for("nq", fid, [split_reader()])
    [row] = evaluate_task(settings, None)
    assert (row["questions"], row["passages"]) == (2, 3)
    firsts, lasts = [range(3), range(len(SENTENCES) - 1, len(SENTENCES) - 4, -1)]
    assert [[document.content for document in documents] for documents in read[-2:]] == [
        [SENTENCES[n] for n in firsts], [SENTENCES[n] for n in lasts],
    ]  # fmt: skip
    assert [document.meta["title"] for document in read[-1]] == [f"Title {n}" for n in lasts]
    assert not caplog.records
    evaluate_task(replace(settings, passages=str(nq[1])), None)
    assert "Title 0" not in {document.meta["title"] for document in read[-1]}  # in the file of passages, from 1
    assert "dev.json comes with passages, which are not read: --passages is given" in caplog.text


def test_questions_with_and_without_passages(fid, split_reader):
    """BM25 finds passages for a question that has none among those of the others."""
    rows = json.loads(fid.read_text(encoding="utf-8"))
    rows[1]["ctxs"] = []
    fid.write_text(json.dumps(rows), encoding="utf-8")
    [row] = evaluate_task(settings_for("triviaqa", fid, [split_reader()]), None)
    assert (row["questions"], row["passages"]) == (2, 3)


def test_a_language(nq, split_reader, monkeypatch, tmp_path):
    data, passages = nq
    data.write_text(json.dumps({"question": "oslo?", "answer": ["東京都"]}) + "\n", encoding="utf-8")
    monkeypatch.setattr(tasks, "best", lambda outputs: ("「東京 都」", 0.0))
    output = tmp_path / "figures.json"
    settings = settings_for("nq", data, [split_reader()], passages=str(passages))
    values = {}
    for language in (None, "ja"):
        [row] = evaluate_task(replace(settings, language=language), output)
        values[language] = row["value"]
        told = json.loads(output.read_text(encoding="utf-8"))
        assert told.get("language") == language
        with pytest.raises(DataError, match="answers of another run"):
            evaluate_task(replace(settings, language="zh"), output)
        output.with_suffix(".answers.jsonl").unlink()
    assert values == {None: 0, "ja": 100}


@pytest.mark.parametrize("task", ["fever", "mmlu"])
def test_written_answers(task, nq, generative, tmp_path):
    """Evidence that comes with a claim is read, found or not; choices stand in the question."""
    if task == "fever":
        data = tmp_path / "fever.jsonl"
        claim = {"claim": "Oslo is in Norway.", "label": "SUPPORTS", "evidence": ["Oslo -LRB- a town -RRB- is it ."]}
        data.write_text(json.dumps(claim) + "\n", encoding="utf-8")
    else:
        data = tmp_path / "geography_test.csv"
        data.write_text("What is the capital of Norway?,Rome,Oslo,Paris,Bern,B\n", encoding="utf-8")
    settings = settings_for(task, data, [generative], passages=str(nq[1]), writes=True)
    [row] = evaluate_task(settings, tmp_path / f"{task}.json")
    assert (row["questions"], row["metric"]) == (1, "accuracy")
    [_, line] = (tmp_path / f"{task}.answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["passages"] <= 3
    assert json.loads(line)["text"] in TASKS[task].words
    knobs = {"kept_share": 0.5, "merged_inside": 0.1, "merged_across": 0.2}
    merging = replace(settings, knobs=knobs | {"merged_share": 0.3})
    with pytest.raises(DataError, match="answers of another run"):
        evaluate_task(merging, tmp_path / f"{task}.json")
    reader = tasks.reader_of(str(generative), merging)
    assert {name: getattr(reader, name) for name in knobs} == knobs
    assert reader.token_store.merged_share == 0.3
    assert evaluate_task(merging, tmp_path / "merged.json")[0]["bytes_a_token"] < row["bytes_a_token"]


@pytest.mark.parametrize("task", ["triviaqa", "webquestions"])
def test_questions_without_passages(task, nq, split_reader, tmp_path):
    """TriviaQA and WebQuestions in their own formats, over passages as DPR cuts them."""
    data = tmp_path / "questions.json"
    if task == "triviaqa":
        answer = {"Value": "Oslo", "Aliases": ["Oslo", "Kristiania"]}
        one = {"Question": "What is the capital of Norway?", "QuestionId": "tc_1", "Answer": answer}
        data.write_text(json.dumps({"Data": [one]}), encoding="utf-8")
    else:
        one = {"utterance": "what is the capital of norway?", "targetValue": '(list (description "Oslo"))'}
        data.write_text(json.dumps([one]), encoding="utf-8")
    model = split_reader()
    [row] = evaluate_task(settings_for(task, data, [model], passages=str(nq[1])), tmp_path / "figures.json")
    assert (row["task"], row["metric"], row["questions"], row["passages"]) == (task, "EM", 1, 3)
    [_, line] = (tmp_path / "figures.answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert row["value"] == 100 * (json.loads(line)["text"].lower() in {"oslo", "kristiania"})


def test_a_model_as_its_own_teacher_and_ids_that_come_twice(nq, split_reader, tmp_path):
    data = tmp_path / "twice.jsonl"
    data.write_text(
        "".join(json.dumps({"id": "1", "question": q, "answer": a}) + "\n" for q, a in QUESTIONS), encoding="utf-8"
    )
    model = split_reader(k=1, bits=24)
    settings = settings_for("nq", data, [model], teacher=str(model), passages=str(nq[1]), knobs={"kept_share": 0.5})
    rows = evaluate_task(settings, tmp_path / "figures.json")
    assert [row["teacher"] for row in rows] == [True, False]
    lines = [
        json.loads(line) for line in (tmp_path / "figures.answers.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert [(line["teacher"], line["number"]) for line in lines] == [(True, 0), (True, 1), (False, 0), (False, 1)]


def test_long_questions_keep_their_choices(generative):
    tokenizer = AutoTokenizer.from_pretrained(generative)
    item = Item("law/1", "one two three four five " * 30 + "who is liable?", ("B",), (), ("he", "she", "it", "nobody"))
    prompt = TASKS["mmlu"].prompt
    asked = [tasks.fitting(item, prompt, room, tokenizer) for room in (2000, 120, 5)]
    assert asked[0] == question_of(item)
    for query in asked:
        assert query.endswith("A. he\nB. she\nC. it\nD. nobody")
    assert asked[1].splitlines()[0].endswith("five who is liable?")
    assert len(tokenizer(prompt.replace("{query}", asked[1]))["input_ids"]) <= 120
    assert asked[2].splitlines()[0] == ""  # nothing is left but the choices


def test_only_the_words_are_written(generative):
    documents = [Document(content=text) for text in SENTENCES[:3]]
    tokenizer = AutoTokenizer.from_pretrained(generative)
    words = ("Norway", "Oslo is", "Oslo")  # one begins another
    reader = BTRGenerativeReader(generative)
    for query in ("What is the capital?", "Who was awarded?", "Where?"):
        for some in (words, *((word,) for word in words)):
            only = {"prefix_allowed_tokens_fn": tasks.one_of(some, tokenizer)}
            [answer] = reader.run(query, documents, generation_kwargs=only)["answers"]
            assert answer.data in some
        answers = reader.run(query, documents, top_k=3, generation_kwargs=only | {"num_beams": 3})["answers"]
        assert answers[0].data in some  # beams behind the only word have nothing left but padding


def test_a_run_that_was_broken_off_goes_on(nq, split_reader, tmp_path, monkeypatch):
    data, passages = nq
    output, journal = tmp_path / "figures.json", tmp_path / "figures.answers.jsonl"
    settings = settings_for("nq", data, [split_reader()], passages=str(passages))
    first = evaluate_task(settings, output)
    lines = journal.read_text(encoding="utf-8").splitlines()
    journal.write_text("\n".join([*lines[:-1], lines[-1][:20]]), encoding="utf-8")
    asked = []
    answered = tasks.answered
    monkeypatch.setattr(tasks, "answered", lambda *given: asked.append(given[-1].question) or answered(*given))
    again = evaluate_task(settings, output)
    assert asked == [QUESTIONS[1][0]]
    assert again[0]["value"] == first[0]["value"]
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 3
    assert evaluate_task(settings, output)[0]["value"] == first[0]["value"]
    assert len(asked) == 1
    with pytest.raises(DataError, match="answers of another run"):
        evaluate_task(settings_for("nq", data, [split_reader()], passages=str(passages), top_k=2), output)
    journal.write_text("\n".join([lines[0], "nonsense", lines[1]]), encoding="utf-8")
    with pytest.raises(DataError, match="line 2: not an answer: nonsense"):
        evaluate_task(settings, output)


def test_refusals(nq, split_reader, tmp_path):
    data, passages = nq
    with pytest.raises(DataError, match="comes without passages"):
        evaluate_task(settings_for("nq", data, [split_reader()]), None)
    with pytest.raises(ValueError, match="give --writes"):
        evaluate_task(settings_for("mmlu", data, [split_reader()], passages=str(passages)), None)
    with pytest.raises(DataError, match="no such file"):
        evaluate_task(settings_for("nq", tmp_path / "none", [split_reader()], passages=str(passages)), None)
