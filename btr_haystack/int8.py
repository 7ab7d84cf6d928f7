# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Weights at rest in 8 bits: every row of a large matrix has a scale of its own. They are read back as floats."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from btr_haystack.errors import ModelError

SCALE = ".row_scale"
SMALLEST = 65_536  # numbers of a matrix that is worth it
MARK = {"format": "pt", "weights": "int8"}
WEIGHTS_FILE = "model.safetensors"


def shrunk(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Round the encoder's (and decoder's) large matrices to 8 bits; codes are decided by what is left in float16.

    >>> small = shrunk({"encoder.w": torch.linspace(-1, 1, 65_536).view(256, 256), "qa_outputs.bias": torch.ones(2)})
    >>> [(name, str(one.dtype)) for name, one in small.items()]
    [('encoder.w', 'torch.int8'), ('encoder.w.row_scale', 'torch.float32'), ('qa_outputs.bias', 'torch.float16')]
    >>> (whole(small)["encoder.w"][0, :2] * 100).round().tolist()
    [-100.0, -100.0]

    :param weights: floating-point tensors by name.
    :returns: int8 matrices (rows, columns), each with its scales (rows,), and all else in float16.
    """
    small = {}
    for name, weight in weights.items():
        if name.startswith("encoder.") and weight.ndim == 2 and weight.numel() >= SMALLEST:  # noqa: PLR2004
            scale = weight.float().abs().amax(1) / 127
            rows = weight.float() / scale.clamp_min(1e-30)[:, None]
            small[name] = rows.round().clamp(-127, 127).to(torch.int8)
            small[name + SCALE] = scale
        else:
            small[name] = weight.half()
    return small


def whole(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    The inverse of `shrunk`, but for what was rounded; weights that are not shrunk stay as they are.

    :param weights: of `shrunk`, or ordinary ones.
    :returns: float16 where they were 8 bits, so that loading in float16 or float32 gives the same numbers.
    """
    return {
        name: (weight.float() * weights[name + SCALE][:, None]).half() if name + SCALE in weights else weight
        for name, weight in weights.items()
        if not name.endswith(SCALE)
    }


def shrink_file(folder: str | Path) -> None:
    """
    Round the weights of a saved model, in place.

    :param folder: of `save_pretrained`.
    :raises FileNotFoundError: where the weights are not in one file, model.safetensors.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        msg = f"{path}: no such file; weights in 8 bits must be in one file (max_shard_size)"
        raise FileNotFoundError(msg)
    beside = path.with_suffix(".part")
    save_file(shrunk(load_file(path)), beside, metadata=MARK)
    shutil.copymode(path, beside)
    os.replace(beside, path)


def is_shrunk(path: str | Path) -> bool:
    """
    Whether a safetensors file holds weights in 8 bits; only its header is read.

    :raises ModelError: if it is damaged, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("weights") == MARK["weights"]
    except (SafetensorError, OSError) as error:
        msg = f"{path} is damaged, or no safetensors file ({error}); fetch or save it again"
        raise ModelError(msg) from error


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """
    The shape of each weight in a safetensors file, by its header alone.

    :param path: of the file.
    :returns: by name, without the scales of weights in 8 bits.
    :raises ModelError: if it is damaged, or no safetensors file; where weights in 8 bits are no matrices with one scale
        a row, which could make any number of rows of one.
    """
    packed = is_shrunk(path)
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        found = {name: (tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices.items()}
    if not packed:
        return {name: shape for name, (shape, _) in found.items()}
    for name, (_, dtype) in found.items():
        base = name.removesuffix(SCALE)
        if (dtype == "I8" or base + SCALE in found) and not _fit(found.get(base), found.get(base + SCALE)):
            msg = (
                f"{path}: {base} is {found.get(base)} and its scales {found.get(base + SCALE)}; expected a matrix of "
                "I8 with one scale a row in F32. Fetch or save it again"
            )
            raise ModelError(msg)
    return {name: shape for name, (shape, _) in found.items() if not name.endswith(SCALE)}


def _fit(matrix: tuple[tuple[int, ...], str] | None, scales: tuple[tuple[int, ...], str] | None) -> bool:
    if matrix is None or scales is None:
        return False
    (shape, dtype), (rows, dtype_of_scales) = matrix, scales
    return (len(shape), dtype, dtype_of_scales) == (2, "I8", "F32") and rows == shape[:1]
