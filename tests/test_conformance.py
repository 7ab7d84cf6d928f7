# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
The tests that transformers-haystack has for TransformersExtractiveReader, run on BTRReader.

They are taken from its source archive: one that the environment variable TRANSFORMERS_HAYSTACK_SDIST names, or that pip
can get. Nothing of it runs before its hash is checked. Their import is rewritten, and what they call of the reader's
private helpers leads to ours.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RELEASE = "transformers-haystack==2.0.0"
SHA256 = "648718ec984d83e1a3538cc748c5b159e077d3b747a49513a16f22708d0c8bce"
TESTS = 39
LEFT_OUT = {
    "test_warm_up_is_idempotent": "replaces names inside of upstream's module; test_components has its own",
    "test_to_dict": "upstream writes the device of this machine into model_kwargs; here None stays None",
    "test_to_dict_no_token": "as test_to_dict",
    "test_to_dict_empty_model_kwargs": "as test_to_dict",
    "test_from_dict": "as test_to_dict",
    "test_from_dict_no_default_parameters": "another default model; as test_to_dict",
    "test_run_no_docs": "the outputs are compared as a whole; here there is one more, `cache`",
    "test_output": "reads with a made-up tokenizer and model of upstream's inner interface",
    "test_flatten_documents": "a private helper that has no counterpart here",
    "test_preprocess": "as test_flatten_documents",
    "test_preprocess_splitting": "as test_flatten_documents",
    "test_warm_up_use_hf_token": "replaces names inside of upstream's module; test_components has its own",
    "test_device_map_auto": "as test_warm_up_use_hf_token",
    "test_device_map_str": "as test_warm_up_use_hf_token",
    "test_device_map_dict": "as test_warm_up_use_hf_token",
    "test_t5": "needs a model from the network (and one with a decoder, which is not split)",
    "test_roberta": "needs a model from the network; test_equality does the same with tiny models",
}

READER = '''

import numpy as np
import torch

from btr_haystack.limits import Limits
from btr_haystack.spans import best_spans
from haystack_integrations.components.readers.btr import BTRReader
from haystack_integrations.components.readers.btr import _answers as rules


class TransformersExtractiveReader(BTRReader):
    """BTRReader, under the names that upstream has for its helpers."""

    def to_dict(self):
        """As saved, but for what upstream does not know."""
        data = super().to_dict()
        settings = data["init_parameters"]
        assert settings.pop("token_store") is settings.pop("max_answer_length") is None
        assert settings.pop("progress_bar") is False
        assert settings.pop("kept_share") is None
        assert settings.pop("retrieval_weight") == 0
        assert settings.pop("second_model") is None
        assert settings.pop("second_read") == 2
        assert settings.pop("int8") is False
        assert settings.pop("limits") == Limits().to_dict()
        return data

    def _calculate_overlap(self, answer1_start, answer1_end, answer2_start, answer2_end):
        return rules.overlap(answer1_start, answer1_end, answer2_start, answer2_end)

    def _should_keep(self, candidate_answer, current_answers, overlap_threshold):
        kept = self.deduplicate_by_overlap([*current_answers, candidate_answer], overlap_threshold)
        return kept[-1] is candidate_answer

    def _add_answer_page_number(self, answer):
        return rules.with_page_number(answer)

    def _postprocess(self, *, start, end, sequence_ids, attention_mask, answers_per_seq, encodings):
        inside = (sequence_ids == 1) & (attention_mask == 1)
        scores, first, last = best_spans(start, end, inside, answers_per_seq)
        valid = scores.isfinite()
        chars = [encoding.token_to_chars for encoding in encodings]
        return (
            [[at(token)[0] for token in row[ok]] for at, row, ok in zip(chars, first, valid)],
            [[at(token)[1] for token in row[ok]] for at, row, ok in zip(chars, last, valid)],
            [torch.sigmoid(row[ok] * self.calibration_factor) for row, ok in zip(scores, valid)],
        )

    def _nest_answers(
        self, *, start, end, probabilities, flattened_documents, queries, query_ids, document_ids, answers_per_seq,
        top_k, score_threshold, no_answer, overlap_threshold,
    ):
        settings = rules.AnswerRules(top_k, score_threshold, no_answer, self.calibration_factor, overlap_threshold)
        nested = []
        for number, query in enumerate(queries):
            found = []
            for owner, place, *spans in zip(query_ids, document_ids, start, end, probabilities):
                document = flattened_documents[place]
                for first, last, score in zip(*spans) if owner == number else ():
                    offset = ExtractedAnswer.Span(first, last)
                    found.append(ExtractedAnswer(
                        query=query, data=document.content[first:last], document=document, score=float(score),
                        document_offset=offset,
                    ))
            found.sort(key=lambda answer: -answer.score)
            nested.append(rules.choose(found, query, settings))
        return nested
'''
CHOICE = """
import os


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.originalname in os.environ["LEFT_OUT"].split()]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
"""
WARM = '''

@pytest.fixture()
def mock_reader():
    """Not warm: the helpers need no model."""
    return TransformersExtractiveReader("mock-model")
'''


@pytest.fixture(scope="module")
def upstream_tests(tmp_path_factory):
    """Upstream's file of tests, from the source archive."""
    given = os.environ.get("TRANSFORMERS_HAYSTACK_SDIST")
    if given:
        archive = Path(given)
    elif not os.environ.get("CONFORMANCE_REQUIRED"):
        pytest.skip(f"the tests of {RELEASE} are downloaded and run with CONFORMANCE_REQUIRED=1 in the environment")
    else:
        folder = tmp_path_factory.mktemp("sdist")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            "transformers-haystack",
            "--require-hashes",  # checked before pip runs the archive's build for its metadata
            "--requirement",
        ]
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{RELEASE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        subprocess.run([*command, pinned, "--dest", folder], check=True, timeout=120)
        archive = next(folder.glob("*.tar.gz"))
    return read_tests(archive)


def read_tests(archive):
    """The file of tests out of the archive, if that is the one that was read before it was pinned."""
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        pytest.fail(f"{archive}: sha256 is {found}; expected {SHA256}, of {RELEASE}")
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        member = next(name for name in opened.getnames() if name.endswith("/tests/test_extractive_reader.py"))
        return opened.extractfile(member).read().decode()


def rewritten(source):
    """Upstream's tests with our reader in the place of theirs."""
    theirs = "from haystack_integrations.components.readers.transformers import TransformersExtractiveReader\n"
    assert source.count(theirs) == 1
    source = source.replace(theirs, READER)
    source = source.replace(
        "haystack_integrations.components.readers.transformers.extractive_reader.TransformersExtractiveReader",
        "test_upstream.TransformersExtractiveReader",
    )
    return source + WARM


def test_another_archive_is_not_run(tmp_path):
    archive = tmp_path / "transformers_haystack-2.0.0.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("transformers_haystack-2.0.0/tests/test_extractive_reader.py"))
    with pytest.raises(pytest.fail.Exception, match=r"sha256 is [0-9a-f]{64}; expected 648718ec"):
        read_tests(archive)


def test_upstream_tests(upstream_tests, tmp_path):
    (tmp_path / "test_upstream.py").write_text(rewritten(upstream_tests), encoding="utf-8")
    (tmp_path / "conftest.py").write_text(CHOICE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = integration\n", encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(ROOT / "components")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_upstream.py"],
        env=os.environ | {"PYTHONPATH": path, "LEFT_OUT": " ".join(LEFT_OUT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS - len(LEFT_OUT)} passed, {len(LEFT_OUT)} deselected" in done.stdout
