# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from conftest import FAMILIES, passage
from haystack import Document
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from btr_haystack import BTRForConditionalGeneration, BTRForQuestionAnswering, SplitReader, int8
from haystack_integrations.components.readers.btr import BTRReader


@pytest.fixture
def every_matrix(monkeypatch):
    """The matrices of tiny models are small."""
    monkeypatch.setattr(int8, "SMALLEST", 1)


@pytest.fixture
def shrunk(split_reader, every_matrix, tmp_path):
    """Gives a model's folder, and the folder of the same in 8 bits."""

    def make(family="t5"):
        folder = split_reader(family)
        BTRForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).save_pretrained(
            tmp_path, int8_weights=True
        )
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
        return folder, tmp_path

    return make


@given(st.integers(1, 5), st.integers(1, 7), st.floats(1e-4, 1e3), st.integers(0, 9))
def test_no_number_is_off_by_more_than_half_a_step(rows, columns, size, seed):
    weight = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "SMALLEST", 1)
        again = int8.whole(int8.shrunk({"encoder.w": weight}))["encoder.w"].float()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((again - weight).abs() <= 0.52 * step + 1e-3 * weight.abs() + 1e-6).all()
    assert not again[0].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_8_bits_loads_as_any_other(family, shrunk):
    before, after = shrunk(family)
    assert (after / "model.safetensors").stat().st_size < 0.7 * (before / "model.safetensors").stat().st_size
    assert not list(after.glob("*.part"))
    whole = BTRForQuestionAnswering.from_pretrained(before, dtype=torch.float32).state_dict()
    model, told = BTRForQuestionAnswering.from_pretrained(after, dtype=torch.float32, output_loading_info=True)
    assert not any(told.values())
    assert model.config.name_or_path == str(after)
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, whole[name], atol=whole[name].abs().max().item() / 100)
    others = (
        AutoModelForQuestionAnswering.from_pretrained(after, dtype=torch.float32, device_map="cpu"),
        SplitReader.from_pretrained(after).model,
        BTRForQuestionAnswering.from_reader(after, k=2, bits=16, dtype=torch.float32),
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_codes_and_fingerprint_are_one_whatever_the_dtype(shrunk):
    before, after = shrunk()
    tokenizer = AutoTokenizer.from_pretrained(after)
    of_the_file = SplitReader.from_pretrained(after)
    for dtype in (torch.float16, torch.float32):
        loaded = BTRForQuestionAnswering.from_pretrained(after, dtype=dtype)
        assert SplitReader(loaded, tokenizer).fingerprint == of_the_file.fingerprint
    assert SplitReader.from_pretrained(before).fingerprint != of_the_file.fingerprint
    answers = BTRReader(after, no_answer=False).run("Where is Oslo?", [Document(content=passage(0))])["answers"]
    assert answers[0].data


def test_pushing_before_it_is_in_8_bits(split_reader, tmp_path):
    model = BTRForQuestionAnswering.from_pretrained(split_reader())
    with pytest.raises(ValueError, match="push_to_hub would upload the weights before they are in 8 bits"):
        model.save_pretrained(tmp_path, int8_weights=True, push_to_hub=True)


def test_saved_again_it_is_whole(shrunk, tmp_path):
    _, folder = shrunk()
    model = BTRForQuestionAnswering.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(tmp_path / "again")
    assert not int8.is_shrunk(tmp_path / "again" / "model.safetensors")
    again = BTRForQuestionAnswering.from_pretrained(tmp_path / "again", dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_writing_model(generative, every_matrix, tmp_path):
    model = BTRForConditionalGeneration.from_pretrained(generative, dtype=torch.float32)
    model.save_pretrained(tmp_path, int8_weights=True)
    again = BTRForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, atol=one.abs().max().item() / 100), name
    assert BTRForQuestionAnswering.from_pretrained(tmp_path).config.bits == model.config.bits


def test_weights_in_several_files_are_not_shrunk(split_reader, tmp_path):
    model = BTRForQuestionAnswering.from_pretrained(split_reader())
    with pytest.raises(FileNotFoundError, match="weights in 8 bits must be in one file"):
        model.save_pretrained(tmp_path, int8_weights=True, max_shard_size="20KB")
