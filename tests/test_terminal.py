# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The `btr` command where it is not read in a UTF-8 terminal: other encodings, pipes, files, full disks, nobody."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import SENTENCES

from btr_cli.figures import tell
from btr_cli.main import main
from btr_cli.terminal import readable, result_console, tracked

ROOT = Path(__file__).parents[1]
ENCODINGS = ["utf-8", "latin-1", "ascii", "cp437", "cp1252", "shift_jis"]
NAME = "één….json"
ODD = "Łódź … “Zürich” 東京 😀"
FULL = Path("/dev/full")


@pytest.fixture
def run_into(monkeypatch):
    """Runs `btr` with arguments and a stdout of its own: gives the exit status."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(stdout, *arguments):
        monkeypatch.setattr(sys, "argv", ["btr", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0

    return run


@pytest.fixture
def odd_documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": f"{ODD} {text} {ODD}", "title": ODD}, ensure_ascii=False) for text in SENTENCES[:2]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def asked(tmp_path):
    """One question, in a file whose name is odd."""
    answers = [{"text": "Oslo", "answer_start": 0}]
    paragraph = {"context": SENTENCES[0], "qas": [{"id": "1", "question": "What is Oslo?", "answers": answers}]}
    path = tmp_path / os.fsdecode(NAME.encode())  # a name that the locale may be unable to decode
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_answers_in_any_encoding(encoding, run_into, odd_documents, split_reader, tmp_path, capsys):
    with (tmp_path / "shown").open("w", encoding=encoding) as stdout:
        given = ("--documents", odd_documents, "--model", split_reader())
        assert run_into(stdout, "ask", f"What is Oslo, {ODD}?", *given) == 0
    shown = (tmp_path / "shown").read_bytes().decode(encoding)
    for character in set(ODD):
        escaped = character.encode(encoding, "backslashreplace").decode(encoding)
        assert escaped in shown
    assert "passages from the store" in shown
    assert capsys.readouterr().err == ""  # neither a bar of progress nor a complaint


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
def test_help_and_usage_in_any_encoding(encoding, run_into, tmp_path, capsys):
    with (tmp_path / "shown").open("w", encoding=encoding) as stdout:
        assert run_into(stdout, "evaluate", "--help") == 0
        assert run_into(stdout, "evaluate", "--top-k", "…") == 2
    assert "--output" in (tmp_path / "shown").read_text(encoding=encoding)
    assert "--top-k" in capsys.readouterr().err


def test_a_question_that_is_not_in_the_encoding_of_the_terminal(
    run_into, odd_documents, split_reader, tmp_path, capsys
):
    given = ("--documents", odd_documents, "--model", split_reader())
    utf8, latin1 = (f"What is Oslo or {word}?" for word in ("Z\udcc3\udcbcrich", "Z\udcfcrich"))
    for question, shown in ((utf8, "What is Oslo or Zürich?"), (latin1, "What is Oslo or Z\ufffdrich?")):
        with (tmp_path / "shown").open("w", encoding="utf-8") as stdout:
            assert run_into(stdout, "ask", question, *given) == 0
        assert shown in (tmp_path / "shown").read_text(encoding="utf-8")
        told = capsys.readouterr().err
        assert ("the question has bytes that are not UTF-8" in told) == ("\ufffd" in shown)


@pytest.mark.parametrize("text", ["", "Zürich", "東京 \ufffd"])
def test_readable_text_stays(text):
    assert readable(text) == text
    assert readable(text.encode("utf-8").decode("ascii", "surrogateescape")) == text


def test_figures_where_the_terminal_lacks_characters(run_into, asked, split_reader, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    with (tmp_path / "shown").open("w", encoding="ascii") as stdout:
        assert run_into(stdout, "evaluate", asked, "--model", split_reader(), "--output", figures) == 0
    shown = (tmp_path / "shown").read_text(encoding="ascii")
    assert r"\xe9\xe9n\u2026.json" in shown
    name = split_reader().name
    assert sum(line.count(name) for line in shown.splitlines()) == 2  # a table in a file is not cut
    assert json.loads(figures.read_text(encoding="utf-8"))["data"] == NAME
    assert NAME in figures.with_suffix(".md").read_text(encoding="utf-8")
    assert capsys.readouterr().err.count("saved") == 1


def test_figures_that_nobody_reads(run_into, asked, split_reader, plain_reader, tmp_path, capsys):
    """As in `btr evaluate ... | true`."""
    given = ("--model", split_reader(k=1), "--teacher", plain_reader("bert"), "--top-k", 1)
    for command in ("evaluate", "benchmark"):
        theirs, ours = os.pipe()
        os.close(theirs)
        figures = tmp_path / f"{command}.json"
        with open(ours, "w", encoding="utf-8") as stdout:
            assert run_into(stdout, command, asked, *given, "--output", figures) == 0
        assert json.loads(figures.read_text(encoding="utf-8"))["rows"]
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_figures_where_the_disk_of_the_output_is_full(run_into, asked, split_reader, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    stdout = FULL.open("w", encoding="utf-8")
    given = ("--model", split_reader(), "--mode", "gold", "--output", figures)
    assert run_into(stdout, "evaluate", asked, *given) == 1
    assert json.loads(figures.read_text(encoding="utf-8"))["rows"]
    assert "btr: [Errno 28]" in capsys.readouterr().err


def test_no_stdout_at_all(run_into, asked, split_reader, tmp_path):
    figures = tmp_path / "figures.json"
    assert run_into(None, "evaluate", asked, "--model", split_reader(), "--mode", "gold", "--output", figures) == 0
    assert json.loads(figures.read_text(encoding="utf-8"))["rows"]


def test_figures_that_cannot_be_saved_are_shown(capsys, tmp_path):
    with pytest.raises(FileNotFoundError):
        tell(("F1",), [("83.4",)], "title", {}, tmp_path / "none" / "figures.json")
    assert "83.4" in capsys.readouterr().out


def test_narrow_columns_cut_no_figure(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    tell(("model", "F1", "EM"), [("a-model-with-a-long-name", "83.4", "73.8")], "[title] :smile:", {}, None)
    shown = capsys.readouterr().out
    assert "[title] :smile:" in shown
    assert "…" not in shown
    assert all(figure in shown for figure in ("83.4", "73.8"))


def test_bars_of_progress_are_for_terminals(monkeypatch, capsys):
    assert list(tracked(iter("abc"), "asking", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    openpty = pytest.importorskip("pty").openpty
    ours, theirs = openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        assert list(tracked("abc", "asking")) == ["a", "b", "c"]
    shown = b""
    with suppress(OSError):  # where there is no more
        while more := os.read(ours, 10_000):
            shown += more
    os.close(ours)
    assert b"asking" in shown
    assert capsys.readouterr().out == ""


def test_width_of_a_terminal_is_its_own(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert result_console().width > 100
    monkeypatch.setenv("COLUMNS", "77")
    assert result_console().width == 77


def test_as_a_command_in_the_c_locale(odd_documents, split_reader, tmp_path):
    """Outside of pytest. Bytes of UTF-8 on the command line; ASCII alone on what is shown; of a failure one line."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "components"), os.environ.get("PYTHONPATH", "")])
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": paths}
    program = """
import sys
from btr_cli.main import main
asked = sys.argv
sys.argv = ["btr", "evaluate", "missing [of] files.json"]
try:
    main()
except SystemExit as left:
    print("exit status", left.code)
sys.argv = asked
main()
"""
    asked = ["ask", "What is Oslo or Zürich?".encode(), "--documents", odd_documents, "--model", split_reader()]
    done = subprocess.run(
        [sys.executable, "-c", program, *asked],
        cwd=tmp_path, env=os.environ | locale, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"btr: missing [of] files.json: no such file\n")
    assert done.stdout.startswith(b"exit status 1\n")
    assert rb"What is Oslo or Z\xfcrich?" in done.stdout
    assert done.stdout.isascii()


def test_what_a_stranger_wrote_moves_no_cursor(run_into, split_reader, tmp_path, capsys):
    """Titles, answers and the messages of errors: escaped, and cut."""
    text = "\x1b[2J\u202eOslo\x9b31m\x07 is \x1b]0;owned\x07 the capital " * 3
    line = json.dumps({"text": text, "title": "\x1b[31m\u2066red" + "x" * 2000})
    path = tmp_path / "documents.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with (tmp_path / "shown").open("w", encoding="utf-8") as stdout:
        given = ("--documents", path, "--model", split_reader())
        assert run_into(stdout, "ask", "What is Oslo, the capital?", *given) == 0
    lines = (tmp_path / "shown").read_text(encoding="utf-8")
    assert lines.replace("\n", "").isprintable()
    assert r"\x1b[31m\u2066redxxx" in lines
    assert lines.count("x") < 1000  # three answers
    missing = os.fsdecode("none\x1b[2J\u202e.jsonl".encode())  # as the command line gives it in any locale
    with (tmp_path / "shown").open("w", encoding="utf-8") as stdout:
        assert run_into(stdout, "ask", "What?", "--documents", tmp_path / missing) == 1
    told = capsys.readouterr().err
    assert told.replace("\n", "").isprintable()
    assert r"none\x1b[2J\u" in told
