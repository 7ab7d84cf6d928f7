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

FEED_FORWARD = ("d_ff", "intermediate_size", "hidden_dim")  # what the families call the width of that block


def quantised(model: M) -> M:
    """
    A model that shares the weights of another, but multiplies the matrices above layer k in 8 bits.

    Rows of weights are rounded once, activations call by call (dynamic quantisation). The matrix that closes a
    feed-forward block stays in float32: single large numbers among its inputs leave the others no digits, which cost
    a T5 of ours 7 of 88 points of F1. Codes are made and decoded by what lies below, which stays as it is: a store
    serves both models.

    :param model: in float32, on a CPU; left as it is. One that reads jointly (k = 0) has all its layers in 8 bits.
    :returns: another model, to be read with, not trained; a decoder's matrices are in 8 bits, too.
    :raises ModelError: for a model of another dtype or on another device, or a torch that cannot do it.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        msg = (
            f"int8 computes with a model in torch.float32 on a CPU; this one is in {model.dtype} on {model.device}. "
            "Give the device ComponentDevice.from_str('cpu') and no dtype, or leave int8 out"
        )
        raise ModelError(msg)
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    copied = copy.deepcopy(model, shared)
    decoder = getattr(copied.encoder, "decoder", None)
    widths = {getattr(model.config.encoder, name, None) for name in FEED_FORWARD}
    try:
        for layer in [*copied.family.layers[model.config.k :], *([decoder] if decoder is not None else [])]:
            _quantise(layer, widths)
    except (ImportError, RuntimeError) as error:
        msg = (
            f"torch {torch.__version__} cannot multiply in 8 bits here (engines: "
            f"{torch.backends.quantized.supported_engines}): {error}. Leave int8 out; bfloat16 may be as fast"
        )
        raise ModelError(msg) from error
    return copied


def _quantise(layer: nn.Module, spared: set[int | None]) -> None:
    """Round the matrices of a layer, but for those with as many inputs as is in `spared`."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic  # goes to another package some day

    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if torch.backends.quantized.engine == "none" and engines:  # on macOS none is chosen
        torch.backends.quantized.engine = engines[-1]
    chosen = [
        name for name, one in layer.named_modules() if isinstance(one, nn.Linear) and one.in_features not in spared
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that package is slower on a CPU
        quantize_dynamic(layer, dict.fromkeys(chosen, per_channel_dynamic_qconfig), inplace=True)
