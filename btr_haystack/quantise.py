# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The upper layers in 8 bits on a CPU, by torch's own dynamic quantisation."""

import copy
import warnings
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

from btr_haystack.errors import ModelError
from btr_haystack.model import BTRForQuestionAnswering

M = TypeVar("M", bound=BTRForQuestionAnswering)


def quantised(model: M) -> M:
    """
    A model that shares the weights of another, but multiplies the matrices above layer k in 8 bits.

    Rows of weights are rounded once, activations call by call (dynamic quantisation). Matrices with more inputs than
    outputs, which close a feed-forward block, stay in float32: single large numbers among their inputs leave the others
    no digits, which cost the shipped model 7 of 88 points of F1. Codes are made and decoded by what lies below, which
    stays as it is: a store serves both models.

    :param model: in float32, on a CPU; left as it is. One that reads jointly (k = 0) has all its layers in 8 bits.
    :returns: another model, to be read with, not trained; a decoder's matrices are in 8 bits, too.
    :raises ModelError: for a model of another dtype or on another device, or a torch that cannot do it.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        msg = f"the model is in {model.dtype} on {model.device}; 8 bits take one in torch.float32 on the CPU"
        raise ModelError(msg)
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:
        msg = (
            f"torch {torch.__version__} has no quantize_dynamic any more; read in bfloat16 instead, or with torch 2.13"
        )
        raise ModelError(msg) from error
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    copied = copy.deepcopy(model, shared)
    decoder = getattr(copied.encoder, "decoder", None)
    layers = [*copied.family.layers[model.config.k :], *([decoder] if decoder is not None else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move it to a package that is slower on a CPU
        for layer in layers:
            chosen = [
                name for name, one in layer.named_modules()
                if isinstance(one, nn.Linear) and one.in_features <= one.out_features
            ]  # fmt: skip
            quantize_dynamic(layer, dict.fromkeys(chosen, per_channel_dynamic_qconfig), inplace=True)
    return copied
