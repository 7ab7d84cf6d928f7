# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""First imports, each in a process of its own: by threads at once, and in any order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from haystack import Pipeline

from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

ROOT = Path(__file__).parent.parent
COMPONENTS = "haystack_integrations.components.readers.btr"
AT_ONCE = """
import sys
import threading

gate, failures = threading.Barrier(len(sys.argv) - 1), []


def run(line):
    gate.wait()
    try:
        exec(line, {})
    except BaseException as error:
        failures.append(f"{line}: {type(error).__name__}: {error}")


threads = [threading.Thread(target=run, args=(line,)) for line in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*failures, sep="\\n", end="")
"""


def fresh(code, *arguments):
    """What a new process prints."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "components")])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_threads_import_and_load_a_saved_pipeline_at_once(split_reader, tmp_path):
    lines = [
        "import btr_haystack",
        "import btr_haystack; btr_haystack.SplitReader; btr_haystack.record.pack",
        "from btr_haystack import fit_codes, BTRConfig",
        "from btr_haystack import *",
        "from btr_haystack.config import BTRConfig",
        "from btr_haystack.generative import BTRForConditionalGeneration",
        "from btr_haystack.reader import SplitReader",
        "from btr_haystack.stores import open_store, MemoryStore",
        "from btr_haystack.stores.sqlite import SQLiteStore",
        "from btr_haystack.tasks import TASKS",
        "from btr_haystack.tasks.questions import read_nq",
        "from haystack import Pipeline",
        f"import {COMPONENTS}.btr_reader",
        f"from {COMPONENTS} import BTRReader",
        f"from {COMPONENTS} import BinaryTokenStore",
        f"from {COMPONENTS}.binary_token_store import BinaryTokenStore",
        f"from {COMPONENTS}.btr_generative_reader import BTRGenerativeReader",
    ]
    pipeline = Pipeline()
    store = BinaryTokenStore(split_reader(), url="memory://", progress_bar=False)
    pipeline.add_component("reader", BTRReader(token_store=store))
    (tmp_path / "pipeline.yaml").write_text(pipeline.dumps(), encoding="utf-8")
    document = 'Document(content="Oslo is the capital of Norway.")'
    load = f"""
from haystack import Document, Pipeline
pipeline = Pipeline.loads(open({str(tmp_path / "pipeline.yaml")!r}, encoding="utf-8").read())
out = pipeline.run({{"reader": {{"query": "What is the capital of Norway?", "documents": [{document}]}}}})
assert out["reader"]["cache"] == {{"hits": 0, "misses": 1}}
"""
    assert fresh(AT_ONCE, *lines[:8], *[load] * 3, *lines[8:], *[load] * 3) == ""


def test_a_plain_import_registers_the_auto_classes_and_imports_no_part(split_reader):
    """A package that imports its own parts is what threads deadlock on."""
    code = """
import sys
import btr_haystack
import btr_haystack.stores, btr_haystack.tasks, haystack_integrations.components.readers.btr as components
packages = [btr_haystack, btr_haystack.stores, btr_haystack.tasks, components]
inside = tuple(package.__name__ + "." for package in packages)
names = {package.__name__ for package in packages}
print(sorted(name for name in set(sys.modules) - names if name.startswith(inside) and "._" not in name))
from transformers import AutoConfig, AutoModelForQuestionAnswering
config = AutoConfig.from_pretrained(sys.argv[1])
print(type(AutoModelForQuestionAnswering.from_config(config)) is btr_haystack.BTRForQuestionAnswering)
print(type(AutoModelForQuestionAnswering.from_pretrained(sys.argv[1])) is btr_haystack.BTRForQuestionAnswering)
print(type(config) is btr_haystack.config.BTRConfig is btr_haystack.BTRConfig)
"""
    assert fresh(code, str(split_reader())).split("\n")[:-1] == ["[]", "True", "True", "True"]


def test_a_name_that_is_not_there():
    import btr_haystack
    from btr_haystack import stores

    for package in (btr_haystack, stores):
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
            package.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from btr_haystack import nothing  # noqa: F401
    assert not hasattr(btr_haystack, "__wrapped__")
