# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Upper layers in 8 bits."""

import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from conftest import FAMILIES, passage
from haystack import Document, Pipeline

from btr_haystack import GenerativeReader, SplitReader
from btr_haystack.errors import ModelError
from btr_haystack.quantise import quantised
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

QUESTION = "Who was awarded the Nobel Prize?"
TEXTS = [passage(number) for number in range(6)]
ROUNDED = "torch.ao.nn.quantized.dynamic.modules.linear"


@contextmanager
def products_are_near(reader, small):
    """Each product that the rounded model computes meanwhile is the whole one's, but for the steps of 8 bits."""
    whole, handles, seen = dict(reader.model.named_modules()), [], []
    for name, module in small.model.named_modules():
        if type(module).__module__ == ROUNDED:
            handles.append(module.register_forward_hook(partial(_check_product, whole[name], seen)))
    yield
    assert handles
    assert len(seen) >= len(handles)
    for handle in handles:
        handle.remove()


def _check_product(whole, seen, _module, given, product):
    """Half a step of each weight, and one of each input, whose steps may be those of 7 bits."""
    [inputs] = given
    weight = whole.weight.detach()
    weight_step = weight.abs().amax(1) / 127
    input_step = (inputs.amax().clamp_min(0) - inputs.amin().clamp_max(0)) / 127
    bound = inputs.abs().sum(-1, keepdim=True) * weight_step / 2 + input_step * weight.abs().sum(1)
    bound = bound + inputs.shape[-1] * input_step * weight_step / 2
    exact = torch.nn.functional.linear(inputs, weight, whole.bias)
    assert ((product - exact).abs() <= 1.01 * bound + 1e-5).all()
    seen.append(whole)


def kinds(model):
    return {type(module).__module__ for module in model.modules() if type(module).__name__ == "Linear"}


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_the_same_passages_with_products_that_are_near(split_reader, family):
    reader = SplitReader.from_pretrained(split_reader(family, k=1))
    small = reader.in_int8()
    assert small.fingerprint == reader.fingerprint
    passages = reader.encode(TEXTS)
    for one, other in zip(passages, small.encode(TEXTS), strict=True):
        assert np.array_equal(one.codes, other.codes)
    with products_are_near(reader, small):
        [rounded] = small.read([QUESTION], passages)
    assert len(rounded.score) == len(reader.read([QUESTION], passages)[0].score)
    assert np.isfinite(rounded.score).all()


def test_only_what_runs_at_question_time_is_rounded(split_reader):
    model = SplitReader.from_pretrained(split_reader("t5", k=1)).model
    small = quantised(model)
    assert kinds(model) == {"torch.nn.modules.linear"}
    assert kinds(small.family.layers[0]) == {"torch.nn.modules.linear"}
    attention, feed_forward = small.family.layers[1].layer
    assert kinds(attention) == {ROUNDED}
    assert kinds(feed_forward) == {ROUNDED, "torch.nn.modules.linear"}
    assert type(feed_forward.DenseReluDense.wo) is torch.nn.Linear
    assert small.family.embeddings is model.family.embeddings
    assert small.binariser.decoder is model.binariser.decoder


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_joint_readers(plain_reader, family):
    reader = SplitReader.from_pretrained(plain_reader(family))
    small = reader.in_int8()
    with products_are_near(reader, small):
        other = small.read_jointly(QUESTION, TEXTS)
    assert len(reader.read_jointly(QUESTION, TEXTS).score) == len(other.score)


def test_writing(generative):
    reader = GenerativeReader.from_pretrained(generative)
    small = reader.in_int8()
    assert ROUNDED in kinds(small.model.encoder.decoder)
    with products_are_near(reader, small):
        [[answer]] = small.write([QUESTION], reader.encode(TEXTS), max_new_tokens=3)
    assert np.isfinite(answer.score)


def test_components_share_a_store(split_reader, generative, tmp_path):
    documents = [Document(content=text) for text in TEXTS]
    for model, kind in ((split_reader("t5"), BTRReader), (generative, BTRGenerativeReader)):
        store = BinaryTokenStore(model, f"sqlite:///{tmp_path}/{kind.__name__}.db", progress_bar=False)
        small, whole = kind(token_store=store, int8=True), kind(token_store=store)
        assert small.run(QUESTION, documents)["cache"] == {"hits": 0, "misses": 6}
        assert whole.run(QUESTION, documents)["cache"] == {"hits": 6, "misses": 0}
        assert "quantized" in str(kinds(small._loaded.reader.model))
        assert "quantized" not in str(kinds(whole._loaded.reader.model))
        pipeline = Pipeline()
        pipeline.add_component("reader", small)
        again = Pipeline.loads(pipeline.dumps()).get_component("reader")
        assert again.int8 is True
        assert again.run(QUESTION, documents)["cache"] == {"hits": 6, "misses": 0}


def test_the_second_reader_is_rounded_too(split_reader, plain_reader):
    reader = BTRReader(split_reader("bert"), second_model=plain_reader("bert"), int8=True)
    reader.run(QUESTION, [Document(content=text) for text in TEXTS])
    assert "quantized" in str(kinds(reader._loaded.second.model))


def test_what_cannot_be_rounded(split_reader, tmp_path):
    half = SplitReader.from_pretrained(split_reader("t5"), dtype=torch.bfloat16)
    with pytest.raises(ModelError, match=r"this one is in torch\.bfloat16 on cpu\. Give the device"):
        half.in_int8()
    url = f"sqlite:///{tmp_path}/store.db"
    store = BinaryTokenStore(split_reader("t5"), url, model_kwargs={"dtype": "bfloat16"})
    with pytest.raises(ModelError, match="int8 computes with a model in"):
        BTRReader(token_store=store, int8=True).warm_up()


def test_a_torch_that_cannot(split_reader, monkeypatch):
    reader = SplitReader.from_pretrained(split_reader("t5"))

    def without_engine(*_, **__):
        msg = "Didn't find engine for operation quantized::linear_prepack NoQEngine"  # as on macOS
        raise RuntimeError(msg)

    with monkeypatch.context() as patched:
        patched.setattr("torch.ao.quantization.quantize_dynamic", without_engine)
        with pytest.raises(ModelError, match=r"cannot multiply in 8 bits here .*NoQEngine. Leave int8 out"):
            reader.in_int8()
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    with pytest.raises(ModelError, match=r"cannot multiply in 8 bits here .* Leave int8 out"):
        reader.in_int8()


def test_no_truth_value(plain_reader):
    with pytest.raises(TypeError, match="int8 is 'yes'; expected True or False"):
        BTRReader(plain_reader("bert"), int8="yes")
