# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The `btr` command as a user meets it, with tiny models: what it prints, and one clear line where it cannot go on."""

import gzip
import json
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import SENTENCES, passage, shipped
from haystack import Document
from safetensors.torch import load_file, save_file

from btr_cli import ask, corpus, demo, squad, train
from btr_cli.answers import Answer
from btr_haystack import default_model_path
from btr_haystack.default import DEFAULT_MODEL, model_source
from btr_haystack.errors import DataError
from btr_haystack.squad import read_squad
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

ROOT = Path(__file__).parents[1]
QUERY = "What is the capital of Norway?"


@pytest.fixture
def lines(tmp_path):
    """Writes a file of JSON lines."""

    def write(*entries, name="documents.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries), encoding="utf-8")
        return path

    return write


@pytest.fixture
def documents_file(lines):
    return lines(*({"text": text, "title": f"Title {number}"} for number, text in enumerate(SENTENCES)))


@pytest.fixture
def squad_file(tmp_path):
    """Three questions that have an answer and one that has none."""

    def asked(number, question, context, answer):
        answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
        return {"id": str(number), "question": question, "answers": answers, "is_impossible": not answers}

    first, second = SENTENCES[0], SENTENCES[3]
    paragraphs = [
        {
            "context": first,
            "qas": [
                asked(1, QUERY, first, "Oslo"),
                asked(2, "Whose seat is Oslo?", first, "its king"),
                asked(3, "What is the capital of Chad?", first, None),
            ],
        },
        {"context": second, "qas": [asked(4, "Which animal is the fastest?", second, "cheetah")]},
    ]
    path = tmp_path / "three.json"
    path.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "Mixed", "paragraphs": paragraphs}]}), encoding="utf-8"
    )
    return path


@pytest.fixture
def tiny_default(split_reader, monkeypatch, tmp_path):
    """The shipped model and passages give way to tiny ones; the cache folder is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shipped = [Document(content=text, meta={"title": f"Title {number}"}) for number, text in enumerate(SENTENCES)]
    for module in (ask, demo):
        monkeypatch.setattr(module, "shipped_documents", lambda: shipped)

    def choose(folder):
        monkeypatch.setattr(corpus, "BinaryTokenStore", partial(BinaryTokenStore, folder, progress_bar=False))

    choose(split_reader())
    return choose


class TestReadDocuments:
    def test_plain_and_compressed(self, lines):
        path = lines({"text": "One.", "title": "First"}, {"content": "Two."}, {"text": "Three.", "title": None})
        expected = [("One.", "First"), ("Two.", ""), ("Three.", "")]
        assert [(found.content, found.meta["title"]) for found in corpus.read_documents(path)] == expected
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert [(found.content, found.meta["title"]) for found in corpus.read_documents(path)] == expected

    def test_line_ends(self, lines):
        """JSON may hold line ends that are not those of the file."""
        path = lines({"text": "One\u2028two\x85three."}, {"text": "Four."})
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n"))
        assert [found.content for found in corpus.read_documents(path)] == ["One\u2028two\x85three.", "Four."]

    def test_lists_and_rows(self, tmp_path):
        path = tmp_path / "documents.json"
        entries = [{"title": "A", "text": "One."}, {"text": "Two.", "title": None}]
        expected = [("One.", "A"), ("Two.", "")]
        path.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        assert [(found.content, found.meta["title"]) for found in corpus.read_documents(path)] == expected
        table = pytest.importorskip("pyarrow").Table.from_pylist(entries)
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
        assert [(found.content, found.meta["title"]) for found in corpus.read_documents(path)] == expected
        path.write_text(json.dumps([*entries, "Three."]), encoding="utf-8")
        with pytest.raises(DataError, match=r"documents\.json: \[2\]: expected a JSON object"):
            corpus.read_documents(path)

    @pytest.mark.parametrize("line", ["5", '"text"', '{"title": "a"}', '{"text": 5}'])
    def test_names_the_line(self, tmp_path, line):
        path = tmp_path / "documents.jsonl"
        path.write_text(f'{{"text": "One."}}\n{line}\n', encoding="utf-8")
        with pytest.raises(DataError, match=r"documents\.jsonl, line 2: expected a JSON object with \"text\""):
            corpus.read_documents(path)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "holds no documents"),
            (b"\n \n", "holds no documents"),
            (b'{"text": "caf\xe9"}', "line 1: expected UTF-8, found the byte 0xe9"),
            (b'{"text": "One."}\n{', "line 2: not JSON"),
            (b"[" * 100_000, "line 1: not JSON"),
            (gzip.compress(b'{"text": "Oslo"}\n' * 100)[:30], "cannot be read: Compressed file ended"),
            (b"\x1f\x8bno", "cannot be read"),
        ],
        ids=["empty", "blank", "latin", "not JSON", "deep", "cut", "not gzip"],
    )
    def test_files_that_cannot_be_read(self, tmp_path, content, told):
        path = tmp_path / "documents.jsonl"
        path.write_bytes(content)
        with pytest.raises(DataError, match=told):
            corpus.read_documents(path)

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match=r"missing\.jsonl: no such file"):
            corpus.read_documents(tmp_path / "missing.jsonl")
        with pytest.raises(DataError, match="cannot be read"):
            corpus.read_documents(tmp_path)

    def test_shipped(self):
        documents, questions = corpus.shipped_documents(), corpus.shipped_questions()
        assert len(documents) >= 1000
        assert len(questions) >= 12
        texts = {}
        for document in documents:
            texts.setdefault(document.meta["title"], []).append(document.content)
        for one in questions:
            assert any(answer in text for answer in one["answers"] for text in texts[one["title"]]), one


class TestAsk:
    def test_documents_of_a_user(self, btr, split_reader, documents_file, tmp_path):
        url = f"sqlite:///{tmp_path}/store.db"
        given = ("ask", QUERY, "--documents", documents_file, "--model", split_reader(), "--store", url, "--answers", 2)
        status, output, errors = btr(*given)
        assert status == 0
        assert QUERY in output
        assert output.count("Title") == 2
        assert "passages from the store" in output
        assert "btr:" not in errors
        with BinaryTokenStore(split_reader(), url) as store:
            assert store.count_documents() == len(SENTENCES)
        assert btr(*given)[0] == 0

    def test_the_same_document_twice(self, btr, split_reader, lines):
        path = lines({"text": SENTENCES[0]}, {"text": SENTENCES[0]}, {"text": SENTENCES[1]})
        status, output, errors = btr("ask", QUERY, "--documents", path, "--model", split_reader())
        assert status == 0, errors
        assert "0 encoded now" in output

    def test_nothing_is_markup(self, btr, split_reader, lines):
        path = lines({"text": "[/of] [red] Oslo [0]", "title": "[/title]"})
        status, output, _ = btr("ask", "Is [/Oslo] [bold]?", "--documents", path, "--model", split_reader())
        assert status == 0
        assert "Is [/Oslo] [bold]?" in output
        assert "[/title]" in output

    def test_no_answer(self, btr, split_reader, documents_file):
        status, output, _ = btr("ask", "Zzyzx?", "--documents", documents_file, "--model", split_reader())
        assert status == 0
        assert "No answer" in output

    def test_shipped_passages(self, btr, tiny_default, split_reader):
        assert "passages from the store" in btr("ask", QUERY)[1]
        with corpus.cached_store() as store:
            assert store.count_documents() == len(SENTENCES)
        tiny_default(split_reader(bits=24))  # the next version comes with another model
        assert "passages from the store" in btr("ask", QUERY)[1]
        with corpus.cached_store() as store:
            assert store.reader.model.config.bits == 24
            assert store.count_documents() == len(SENTENCES)

    def test_refusals(self, refused, split_reader, plain_reader, documents_file, squad_file, tmp_path):
        documents = ("--documents", documents_file)
        surrogate = tmp_path / "surrogate.jsonl"
        surrogate.write_text('{"text": "Oslo"}\n{"text": "Os\\ud800lo"}\n', encoding="utf-8")
        assert "surrogate.jsonl, line 2: not Unicode" in refused("ask", QUERY, "--documents", surrogate)
        assert "missing.jsonl: no such file" in refused("ask", QUERY, "--documents", tmp_path / "missing.jsonl")
        assert "three.json, line 1: expected a JSON object" in refused("ask", QUERY, "--documents", squad_file)
        assert "question is empty" in refused("ask", " ", *documents)
        assert f"{tmp_path}/none: no such folder" in refused("ask", QUERY, *documents, "--model", tmp_path / "none")
        assert "model_type" in refused("ask", QUERY, *documents, "--model", tmp_path)
        for name, content in (("tokenizer.json", "{}"), ("tokenizer_config.json", "{")):
            damaged = Path(shutil.copytree(split_reader(), tmp_path / name.partition(".")[0]))
            (damaged / name).write_text(content, encoding="utf-8")
            told = refused("ask", QUERY, *documents, "--model", damaged)
            assert f"{damaged}: its tokenizer cannot be loaded" in told
        assert "k = 0" in refused("ask", QUERY, *documents, "--model", plain_reader("bert"))
        model = ("--model", split_reader())
        assert "names no store" in refused("ask", QUERY, *documents, *model, "--store", "nowhere")
        url = f"sqlite:///{tmp_path}/store.db"
        with BinaryTokenStore(split_reader(bits=24), url) as store:
            store.warm_up()
        assert "store.db holds passages" in refused("ask", QUERY, *documents, *model, "--store", url)

    @shipped
    @pytest.mark.slow
    @pytest.mark.skipif(not default_model_path().exists(), reason="the default model is not in this tree")
    def test_default_model(self, btr, documents_file, load_shipped_once):
        status, output, _ = btr("ask", QUERY, "--documents", documents_file)
        assert status == 0
        assert "Title 0" in output


class TestDemo:
    def test_tables(self, btr, tiny_default, plain_reader, monkeypatch):
        questions = [{"question": QUERY, "answers": ["x"]}, {"question": "Which animal is it?", "answers": ["y"]}]
        monkeypatch.setattr(demo, "shipped_questions", lambda: questions)
        monkeypatch.setattr(demo, "ordinary_reader", lambda _: BTRReader(plain_reader("bert"), no_answer=False))
        monkeypatch.setattr(demo, "DEFAULT_TEACHER", plain_reader("bert"))
        status, output, _ = btr("demo")
        assert status == 0
        assert re.search(r"ordinary +│.*│ +0 of 2 │ +2 of 2 │", output)
        assert "10 of 10 passages encoded" in output
        assert all(one["question"] in output for one in questions)
        rows = [line.split("│") for line in output.splitlines() if line.count("│") == 7 and "of 2" not in line]
        assert [row[-2].strip() for row in rows if row[-3].strip()] == ["0"] * len(questions)
        assert "128, 64 in half (states)" in output
        assert "(all counted)" in output
        assert "0 of 10 passages encoded" in btr("demo")[1]

    def test_without_the_ordinary_reader(self, refused, tiny_default, monkeypatch):
        monkeypatch.setitem(sys.modules, "haystack_integrations.components.readers.transformers", None)
        assert "btr-haystack[compare]" in refused("demo")


def said(number, text, score=1.0):
    return Answer("reader", False, "gold", number, str(number), text, score, 1.0, 0, 1)


class TestEvaluate:
    def test_figures(self, btr, squad_file, split_reader, plain_reader, tmp_path):
        figures = tmp_path / "figures.json"
        ours, teacher = str(split_reader()), str(plain_reader("bert"))
        status, output, errors = btr(
            "evaluate", squad_file, "--model", ours, "--teacher", teacher, "--top-k", 2, "--output", figures
        )
        assert status == 0
        assert "three.json, seed 0" in output
        assert "documents came from" not in errors
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert [(row["task"], row["model"]) for row in told["rows"]] == [
            (task, Path(folder).name) for task in ("gold", "open") for folder in (teacher, ours)
        ]  # fmt: skip
        for row in told["rows"]:
            assert row["questions"] == 3
            assert 0 <= row["em"] <= row["f1"] <= 100
            assert row["ms"] > 0
            assert row["passages"] == {"gold": 1, "open": 2}[row["task"]]
            assert (row["bytes_a_token"] is None) == row["teacher"]
        assert figures.with_suffix(".md").read_text(encoding="utf-8").count("| gold |") == 2

    def test_figures_need_no_offsets(self, btr, squad_file, split_reader, tmp_path):
        """Neither the right ones, nor the form of the file."""
        told = json.loads(squad_file.read_text(encoding="utf-8"))
        asked = [(one, qa) for article in told["data"] for one in article["paragraphs"] for qa in one["qas"]]
        rows = [{"context": one["context"]} | qa for one, qa in asked]
        for _, qa in asked:
            qa["answers"] = [answer | {"answer_start": -1} for answer in qa["answers"]]
        files = [squad_file, tmp_path / "offsets.json", tmp_path / "rows.jsonl"]
        files[1].write_text(json.dumps(told), encoding="utf-8")
        files[2].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = []
        for file in files:
            figures = tmp_path / f"{file.stem}-figures.json"
            given = ("--model", split_reader(), "--top-k", 2, "--output", figures)
            assert btr("evaluate", file, *given)[0] == 0
            found.append(json.loads(figures.read_text(encoding="utf-8"))["rows"])
        assert len(found[0]) == 2
        same = ("task", "questions", "em", "f1", "passages")
        assert [[{key: row[key] for key in same} for row in rows] for rows in found[1:]] == [
            [{key: row[key] for key in same} for row in found[0]]
        ] * 2

    def test_a_run_that_was_broken_off_goes_on(self, btr, refused, squad_file, split_reader, tmp_path, monkeypatch):
        figures, journal = tmp_path / "figures.json", tmp_path / "figures.answers.jsonl"
        model = tmp_path / "model"
        shutil.copytree(split_reader(k=1), model)
        given = ("evaluate", squad_file, "--model", model, "--top-k", 2, "--output", figures)
        assert btr(*given)[0] == 0
        first, lines = json.loads(figures.read_text(encoding="utf-8")), journal.read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1 + 2 * 3
        journal.write_text("\n".join([*lines[:3], lines[3][:30]]), encoding="utf-8")
        monkeypatch.setattr(squad, "best", lambda outputs: ("something else", 0.0))
        assert btr(*given)[0] == 0
        texts = [json.loads(line)["text"] for line in journal.read_text(encoding="utf-8").splitlines()[1:]]
        assert texts == [*(json.loads(line)["text"] for line in lines[1:3]), *["something else"] * 4]
        monkeypatch.undo()
        journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert btr(*given)[0] == 0
        assert (
            json.loads(figures.read_text(encoding="utf-8"))["rows"][0]["ms"] == first["rows"][0]["ms"]
        )  # nothing was asked again
        assert "holds answers of another run" in refused(*given, "--kept-share", 0.5)
        config, weights = (model / "config.json").read_text(encoding="utf-8"), load_file(model / "model.safetensors")
        (model / "config.json").write_text(json.dumps(json.loads(config) | {"kept_share": 0.5}), encoding="utf-8")
        assert "holds answers of another run" in refused(*given)
        (model / "config.json").write_text(config, encoding="utf-8")
        assert btr(*given)[0] == 0
        save_file({name: weight * 1.5 for name, weight in weights.items()}, model / "model.safetensors")
        assert "holds answers of another run" in refused(*given)

    def test_a_model_as_its_own_teacher(self, btr, squad_file, split_reader, tmp_path):
        """The teacher has none of the knobs."""
        figures, model = tmp_path / "figures.json", split_reader(k=1, bits=24)
        given = ("--model", model, "--teacher", model, "--mode", "open", "--output", figures)
        sizes = []
        for bits in (24, 0):
            assert btr("evaluate", squad_file, *given, "--bits", bits)[0] == 0
            whole, cut = json.loads(figures.read_text(encoding="utf-8"))["rows"]
            assert (whole["teacher"], cut["teacher"]) == (True, False)
            assert whole["bytes_a_token"] is None
            sizes.append(cut["bytes_a_token"])
            figures.with_suffix(".answers.jsonl").unlink()
        assert sizes[0] > sizes[1] + 2

    def test_written_figures(self, btr, squad_file, generative, seq2seq, tmp_path):
        figures = tmp_path / "figures.json"
        given = ("--model", generative, "--teacher", seq2seq, "--writes", "--prompt", "question: {query}")
        given += ("--kept-share", 0.5, "--merged-share", 0.2, "--merged-inside", 0.1, "--merged-across", 0.3)
        assert btr("evaluate", squad_file, *given, "--bits", 16, "--top-k", 2, "--output", figures)[0] == 0
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert told["writes"]
        assert [told[name] for name in ("kept_share", "merged_share", "merged_across")] == [0.5, 0.2, 0.3]
        assert [(row["task"], row["teacher"]) for row in told["rows"]] == [
            (task, teacher) for task in ("gold", "open") for teacher in (True, False)
        ]
        assert all(0 <= row["em"] <= row["f1"] <= 100 and row["ms"] > 0 for row in told["rows"])

    def test_a_perfect_reader_and_a_mute_one(self, squad_file):
        asked = squad.drawn(read_squad(squad_file), None, 0)
        perfect = squad.score(asked, [said(number, one[1].answers[0][0]) for number, one in enumerate(asked)])
        assert (perfect["questions"], perfect["em"], perfect["f1"]) == (3, 100, 100)
        mute = squad.score(asked, [said(number, "") for number in range(3)])
        assert (mute["em"], mute["f1"]) == (0, 0)

    def test_a_teacher_that_is_always_wrong(self, btr, squad_file, split_reader, plain_reader, monkeypatch):
        monkeypatch.setattr(squad, "f1", lambda prediction, golds, language: 0.0)
        given = ("--model", split_reader(), "--teacher", plain_reader("bert"), "--mode", "gold")
        assert btr("evaluate", squad_file, *given)[0] == 0

    def test_questions_without_an_answer(self, btr, refused, squad_file, split_reader, tmp_path):
        content, figures, other = (
            json.loads(squad_file.read_text(encoding="utf-8")),
            tmp_path / "figures.json",
            tmp_path / "other.json",
        )
        content["data"][0]["paragraphs"][0]["qas"].pop()
        other.write_text(json.dumps(content), encoding="utf-8")
        assert "no question without an answer" in refused("evaluate", other, "--mode", "no-answer")
        given = ("--model", split_reader(), "--mode", "no-answer", "--output", figures)
        assert btr("evaluate", squad_file, *given)[0] == 0
        [row] = json.loads(figures.read_text(encoding="utf-8"))["rows"]
        assert (row["questions"], row["unanswerable"]) == (4, 1)
        assert 25 <= row["em"] <= row["f1"] <= 100  # to say nothing at all is right once in four
        asked = squad.drawn(read_squad(squad_file), None, 0, unanswerable=True)
        answers = [
            said(number, one[1].answers[0][0], 0.8) if one[1].answers else said(number, "nonsense", 0.2)
            for number, one in enumerate(asked)
        ]
        sure = squad.score_with_threshold(asked, answers)
        assert (sure["em"], sure["f1"], sure["f1_threshold"]) == (100, 100, 0.8)

    def test_samples(self, squad_file):
        paragraphs = read_squad(squad_file)
        asked = squad.drawn(paragraphs, 2, 1)
        assert len(asked) == 2
        assert asked == squad.drawn(paragraphs, 2, 1)
        assert len(squad.drawn(paragraphs, 9, 1)) == 3

    def test_refusals(self, refused, squad_file, documents_file, tmp_path, monkeypatch):
        assert "--bits has no meaning for task nq" in refused("evaluate", squad_file, "--task", "nq", "--bits", 8)
        assert "--second-read has no meaning where" in refused("evaluate", squad_file, "--writes", "--second-read", 1)
        told = refused("evaluate", squad_file, "--merged-inside", 0.2)
        assert "--merged-inside is 0.2, but nothing is written" in told
        assert "nothing is written; give --writes" in refused("evaluate", squad_file, "--prompt", "question: {query}")
        assert "task is 'trec'; expected squad, nq" in refused("evaluate", squad_file, "--task", "trec")
        assert "mode is 'both of them'" in refused("evaluate", squad_file, "--mode", "both of them")
        assert "missing.json: no such file" in refused("evaluate", tmp_path / "missing.json")
        assert "line 1: found the keys 'text', 'title'; expected SQuAD" in refused("evaluate", documents_file)
        other = tmp_path / "other.json"
        other.write_text('{"data": [{"paragraphs": "none"}]}', encoding="utf-8")
        assert "other.json: data[0]: 'paragraphs' must be of type list" in refused("evaluate", other)
        other.write_text('{"data": [{"paragraphs": []}]}', encoding="utf-8")
        assert "no question with an answer" in refused("evaluate", other)
        assert "no such folder" in refused("evaluate", squad_file, "--output", tmp_path / "none" / "figures.json")
        assert "no such folder" in refused("evaluate", squad_file, "--model", tmp_path / "none")
        assert "is a folder; expected a file" in refused("evaluate", squad_file, "--output", tmp_path)
        monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
        told = refused("evaluate", squad_file, "--output", tmp_path / "figures.json")
        assert "figures.json must not be written by this user" in told
        monkeypatch.undo()
        before = squad_file.read_bytes()
        for name in (squad_file, squad_file.parent / "sub" / ".." / squad_file.name):
            (squad_file.parent / "sub").mkdir(exist_ok=True)
            assert "would overwrite it" in refused("evaluate", squad_file, "--output", name)
        table = squad_file.rename(squad_file.with_suffix(".md"))
        assert "would overwrite it" in refused("evaluate", table, "--output", squad_file)
        assert table.rename(squad_file).read_bytes() == before
        for name in ("figures.md", "figures.jsonl"):
            assert "expected .json" in refused("evaluate", squad_file, "--output", tmp_path / name)

    def test_knobs_are_refused_before_anybody_answers(self, refused, squad_file, split_reader, plain_reader, tmp_path):
        figures, ours, teacher = tmp_path / "figures.json", split_reader(bits=24), plain_reader("bert")
        given = ("evaluate", squad_file, "--teacher", teacher, "--mode", "gold", "--output", figures)
        assert "expected 0 to 24" in refused(*given, "--model", ours, "--bits", 99)
        assert "kept_share is 0.5, but" in refused(*given, "--model", teacher, "--kept-share", 0.5)
        assert "decoder" in refused(*given, "--model", ours, "--writes")
        assert "which reads split" in refused(
            "evaluate", squad_file, "--teacher", ours, "--model", ours, "--second-read", 1, "--output", figures
        )
        assert not list(tmp_path.glob("figures*"))

    def test_numbers_out_of_range(self, btr, squad_file):
        for option in ("--sample", "--open-sample", "--top-k"):
            assert btr("evaluate", squad_file, option, 0)[0] == 2

    def test_nothing_is_retrieved_for_gold_passages(self, refused, squad_file):
        for option in ("--open-sample", "--top-k"):
            told = refused("evaluate", squad_file, "--mode", "gold", option, 3)
            assert f"{option} has no meaning in mode gold" in told
        assert "nothing is retrieved in mode gold" in refused(
            "evaluate", squad_file, "--mode", "gold", "--retrieval-weight", 0.3
        )

    def test_fewer_bits_and_pruning(self, btr, squad_file, split_reader, plain_reader, tmp_path):
        figures = tmp_path / "figures.json"
        status, _, errors = btr(
            "evaluate", squad_file, "--model", split_reader(k=1, bits=24), "--teacher", plain_reader("bert"),
            "--bits", 8, "--coded-share", 0.6, "--kept-share", 0.5, "--retrieval-weight", 0.3, "--output", figures,
        )  # fmt: skip
        assert status == 0, errors
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert (told["bits"], told["coded_share"]) == (8, 0.6)
        assert (told["kept_share"], told["retrieval_weight"]) == (0.5, 0.3)

    def test_read_again_by_the_teacher(self, btr, refused, squad_file, split_reader, plain_reader, tmp_path):
        figures = tmp_path / "figures.json"
        given = ("evaluate", squad_file, "--model", split_reader(k=1, bits=24), "--second-read", 1)
        status, _, errors = btr(*given, "--teacher", plain_reader("bert"), "--output", figures)
        assert status == 0, errors
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert told["second_read"] == 1
        teacher, ours = (row["f1"] for row in told["rows"] if row["task"] == "gold")
        assert ours == teacher > 0
        assert "--second-read is 1, but there is no --teacher" in refused(*given)

    def test_a_language(self, btr, refused, squad_file, split_reader, tmp_path, monkeypatch):
        """Figures of one language are never taken for those of another."""
        content, figures = json.loads(squad_file.read_text(encoding="utf-8")), tmp_path / "figures.json"
        for paragraph in content["data"][0]["paragraphs"]:
            paragraph["context"] = "今天天气很好"
            for question in paragraph["qas"]:
                question["answers"] = [{"text": "今天天气很好", "answer_start": 0}] if question["answers"] else []
        squad_file.write_text(json.dumps(content), encoding="utf-8")
        monkeypatch.setattr(squad, "best", lambda outputs: ("天气 很好。", 1.0))
        given = ("evaluate", squad_file, "--model", split_reader(), "--mode", "gold", "--output", figures)
        status, output, errors = btr(*given, "--language", "zh-CN")
        assert status == 0, errors
        assert "language zh" in output
        told = json.loads(figures.read_text(encoding="utf-8"))
        [row] = told["rows"]
        assert (told["language"], row["em"], row["f1"]) == ("zh", 0, pytest.approx(80))
        assert btr(*given, "--language", "ZH")[0] == 0
        for other in ((), ("--language", "ja")):
            assert "holds answers of another run" in refused(*given, *other)
        figures.with_suffix(".answers.jsonl").unlink()
        assert btr(*given)[0] == 0
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert ("language" in told, told["rows"][0]["f1"]) == (False, 0)
        status, output, errors = btr("evaluate", squad_file, *given[2:4], "--mode", "no-answer", "--language", "zh")
        assert status == 0, errors

    def test_languages_that_are_refused(self, refused, squad_file):
        told = refused("evaluate", squad_file, "--language", "klingon")
        assert "language is 'klingon'; expected one of ar, de, en, es, hi, ja," in told
        assert "language is ''" in refused("evaluate", squad_file, "--language", "")
        for task in ("fever", "mmlu"):
            told = refused("evaluate", squad_file, "--task", task, "--writes", "--language", "en")
            assert f"--language has no meaning for task {task}" in told


KNOBS = ("bits", "coded_share", "kept_share", "second_read", "dtype")


class TestBenchmark:
    def test_every_setting(self, btr, squad_file, split_reader, plain_reader, tmp_path):
        figures, picture = tmp_path / "figures.json", tmp_path / "pareto.png"
        status, output, errors = btr(
            "benchmark", squad_file, "--model", split_reader(k=1, bits=24), "--teacher", plain_reader("bert"),
            "--pareto", "--bits", 24, "--bits", 8, "--dtype", "bfloat16", "--dtype", "int8", "--top-k", 2,
            "--open-sample", 2, "--output", figures, "--plot", picture,
        )  # fmt: skip
        assert status == 0, errors
        assert "bytes a token" in output
        told = json.loads(figures.read_text(encoding="utf-8"))
        assert told["questions"] == {"gold": 3, "open": 2}
        assert [tuple(row[knob] for knob in KNOBS) for row in told["rows"]] == [
            *((bits, share, 1.0, 0, "float32") for bits in (24, 8) for share in (1.0, 0.75, 0.54)),
            *((24, 1.0, share, 0, "float32") for share in (0.5, 0.3)),
            *((24, 1.0, 1.0, again, "float32") for again in (1, 2, 3)),
            *((24, 1.0, 1.0, 0, dtype) for dtype in ("bfloat16", "int8")),
        ]
        assert {row["gold_of_teacher"] for row in told["rows"] if row["second_read"]} == {1.0}
        sizes = {(row["bits"], row["coded_share"]): row["bytes_a_token"] for row in told["rows"]}
        assert 0 < sizes[8, 0.54] <= sizes[24, 1.0]
        assert all(row["ms"] > 0 and row["times_faster"] > 0 for row in told["rows"])
        assert picture.read_bytes().startswith(b"\x89PNG")

    def test_the_default_setting_alone(self, btr, squad_file, split_reader, plain_reader):
        given = ("--model", split_reader(k=1), "--teacher", plain_reader("bert"), "--sample", 1)
        status, output, errors = btr("benchmark", squad_file, *given)
        assert status == 0, errors
        [heading] = [line.split("┃")[1:-1] for line in output.splitlines() if line.startswith("┃")][:1]
        [row] = [line.split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
        assert len(row) == len(heading)
        assert [cell.strip() for cell in row[:5]] == ["16", "100%", "100%", "0", "float32"]

    def test_refusals(self, refused, squad_file, plain_reader, split_reader, tmp_path):
        teacher = ("--teacher", plain_reader("bert"))
        assert "no such folder" in refused("benchmark", squad_file, *teacher, "--plot", tmp_path / "none" / "a.png")
        given = (*teacher, "--model", split_reader(k=1, bits=24))
        assert "bits is 25; expected 0 to 24" in refused("benchmark", squad_file, *given, "--bits", 25)
        assert "dtype is int4; expected one of" in refused("benchmark", squad_file, *given, "--dtype", "int4")
        ordinary = (*teacher, "--model", plain_reader("bert"))
        assert "is of type bert; expected a BTR model" in refused("benchmark", squad_file, *ordinary)
        joint = (*teacher, "--model", plain_reader("t5"))
        assert "reads jointly, or has no bits; expected a BTR model" in refused("benchmark", squad_file, *joint)
        told = refused("benchmark", squad_file, *given, "--kept-share", 2)
        assert "kept_share is 2.0; expected a share above 0" in told
        last = (*teacher, "--model", split_reader(k=2), "--kept-share", 0.5)
        assert "kept_share is 0.5, but this model has one upper layer" in refused("benchmark", squad_file, *last)
        told = refused("benchmark", squad_file, "--teacher", split_reader(), *given[2:], "--second-read", 1)
        assert "is a split reader and cannot read documents again" in told


class TestTrain:
    def test_a_stage(self, btr, squad_file, plain_reader, tmp_path):
        output = tmp_path / "model"
        reader = plain_reader("t5")
        status, told, errors = btr(
            "train", "binarised", "--base", reader, "--teacher", reader, "--output", output, "--data", squad_file,
            "--k", 1, "--bits", 16, "--steps", 2, "--no-bf16",
        )  # fmt: skip
        assert status == 0, errors
        assert f"saved {output}" in told
        record = json.loads((output / "training.json").read_text(encoding="utf-8"))
        assert (record["settings"]["k"], record["settings"]["bits"]) == (1, 16)
        assert BTRReader(output).run(QUERY, [Document(content=passage(0))])["answers"]

    def test_every_option_arrives(self, btr, monkeypatch, tmp_path):
        seen = []
        monkeypatch.setattr(train, "run_stage", lambda settings: seen.append(settings) or tmp_path)
        options = {
            "k": 3, "bits": 64, "code": "sign", "scale": "stored", "steps": 5, "groups": 6, "passages": 7,
            "questions": 8, "negatives": 0.5, "window": 99, "learning_rate": 0.01, "head_learning_rate": 0.02,
            "warmup": 9, "validation": 0.1, "save_every": 11, "seed": 12, "optimizer": "adamw", "coded_share": 0.7,
        }  # fmt: skip
        weights = {
            "shared": 0.1,
            "imitation": 0.2,
            "distillation": 0.3,
            "attended": 0.4,
            "recovery": 0.6,
            "first_look": 0.7,
        }
        given = [str(x) for name, value in (options | weights).items() for x in (f"--{name.replace('_', '-')}", value)]
        status, _, errors = btr(
            "train", "binarised", "--base", "a/b", "--teacher", tmp_path, "--output", "o", "--data", "x",
            "--data", "y", "--no-bf16", "--no-word-match", "--frozen-lower", "--nested", 8, "--nested", 32,
            "--nested-share", 1, "--nested-share", 0.5, "--stop-token", 3, "--stop-token", 5, *given,
        )  # fmt: skip
        assert status == 0, errors
        (settings,) = seen
        assert {name: getattr(settings, name) for name in options} == options
        assert {name: getattr(settings.weights, name) for name in weights} == weights
        assert (settings.stage, settings.base, settings.output, settings.data) == ("binarised", "a/b", "o", ("x", "y"))
        assert (settings.teacher, settings.bf16, settings.nested) == (str(tmp_path), False, (8, 32))
        assert (settings.frozen_lower, settings.word_match, settings.nested_shares) == (True, False, (1.0, 0.5))
        assert settings.stop_tokens == (3, 5)

    def test_refusals(self, refused, squad_file, documents_file, plain_reader, tmp_path):
        output = tmp_path / "model"
        given = ("--base", plain_reader("bert"), "--output", output)
        data = ("--data", squad_file)
        assert "stage is 'studied'; expected one of" in refused("train", "studied", *given, *data)
        assert "imitates a teacher" in refused("train", "decomposed", *given, *data)
        missing = ("--teacher", tmp_path / "none")
        assert "none: no such folder" in refused("train", "decomposed", *given, *data, *missing)
        assert "missing.json: no such file" in refused("train", "teacher", *given, "--data", tmp_path / "missing.json")
        told = refused("train", "teacher", *given, "--data", documents_file)
        assert "line 1: found the keys 'text', 'title'; expected SQuAD" in told
        elsewhere = ("--base", "./none", "--output", output)
        assert "./none: no such folder" in refused("train", "teacher", *elsewhere, *data)
        teacher = ("--teacher", plain_reader("bert"))
        assert "--bits is given, but stage teacher makes no codes; expected stage binarised" in refused(
            "train", "teacher", *given, *data, "--bits", 0
        )
        assert "k is 9" in refused("train", "binarised", *given, *data, *teacher, "--k", 9)
        assert not output.exists()


def test_model_source(tmp_path):
    assert model_source(str(tmp_path)) == str(tmp_path)
    assert model_source("deepset/tinyroberta-squad2") == "deepset/tinyroberta-squad2"
    assert model_source(DEFAULT_MODEL) == str(default_model_path())
    for name in ("./none", "/none", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            model_source(name)
