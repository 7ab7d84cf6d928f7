# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Binary codes of token states: token prior, rotated residual bits, linear decoder.

Every function here is free of state. Shapes: n tokens, d width of the coded vector, e width of the token
embedding, m bits a token. The coded vector is the calibrated state (see `families.py`): what the next layer sees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ridge(x: Tensor, y: Tensor, strength: float = 1e-3) -> Tensor:
    """
    Least squares with a penalty: the matrix A that makes x A closest to y.

    :param x: (n, a) float.
    :param y: (n, b) float.
    :param strength: penalty, relative to the mean square of x's columns.
    :returns: (a, b) float32.

    >>> x = torch.eye(2).repeat(50, 1)
    >>> ridge(x, x @ torch.tensor([[1.0], [3.0]]), strength=0.0).round(decimals=3).tolist()
    [[1.0], [3.0]]
    """
    gram = x.double().T @ x.double()
    penalty = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64, device=x.device)
    solution: Tensor = torch.linalg.solve(gram + penalty, x.double().T @ y.double())
    return solution.float()


def with_one(x: Tensor) -> Tensor:
    """
    Rows at unit root mean square with a constant 1 behind them: the token features of the prior.

    :param x: (n, e) token embeddings.
    :returns: (n, e + 1).

    >>> with_one(torch.tensor([[3.0, -3.0]])).tolist()
    [[1.0, -1.0, 1.0]]
    """
    unit = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-12)
    return F.pad(unit, (0, 1), value=1.0)


def sign(z: Tensor) -> Tensor:
    """
    The bit of each number as -1 or +1; zero counts as +1. Gradients pass as through tanh (paper, section 3.1).

    :param z: any shape, float.
    :returns: same shape and dtype.

    >>> sign(torch.tensor([-0.2, 0.0, 3.0])).tolist()
    [-1.0, 1.0, 1.0]
    """
    hard = torch.where(z >= 0, 1.0, -1.0).to(z.dtype)
    if not z.requires_grad:
        return hard
    soft = torch.tanh(z)
    return soft + (hard - soft).detach()


def itq(z: Tensor, rounds: int = 25) -> Tensor:
    """
    The rotation that brings points nearest to the corners of a cube: iterative quantisation (Gong and Lazebnik, 2011).

    Each round takes the signs C of the rotated points, then the orthogonal matrix that best maps z on C (Procrustes).

    :param z: (n, m) centred points.
    :param rounds: rounds of the alternation.
    :returns: (m, m) orthogonal float32 matrix G; the bits are the signs of z G.

    >>> turned = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> corners = turned @ itq(turned)
    >>> bool((corners.abs() - 0.5**0.5).abs().max() < 0.01)
    True
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    start = torch.randn(z.shape[1], z.shape[1], generator=generator).to(z)
    rotation = torch.linalg.qr(start).Q
    for _ in range(rounds):
        codes = torch.where(z @ rotation >= 0, 1.0, -1.0).to(z.dtype)
        left, _, right = torch.linalg.svd(z.T @ codes)
        rotation = left @ right
    return rotation


def projection(residuals: Tensor, bits: int, rounds: int = 25) -> Tensor:
    """
    Directions whose signs are the code: principal axes turned by `itq`, random directions for bits beyond the width.

    :param residuals: (n, d) what the prior leaves, already weighted by importance.
    :param bits: m; free, also above d.
    :param rounds: rounds of `itq`.
    :returns: (d, m) float32, scaled so that residuals @ P has unit root mean square in each column.

    >>> p = projection(torch.randn(500, 8, generator=torch.Generator().manual_seed(1)), bits=12)
    >>> tuple(p.shape)
    (8, 12)
    """
    width = residuals.shape[1]
    centred = residuals - residuals.mean(0)
    _, axes = torch.linalg.eigh((centred.T @ centred).double())
    axes = axes.flip(1).float()[:, : min(bits, width)]
    found = axes @ itq(centred @ axes, rounds) if bits else axes[:, :0]
    if bits > width:
        generator = torch.Generator(device="cpu").manual_seed(1)
        extra = torch.randn(width, bits - width, generator=generator).to(found)
        found = torch.cat([found, F.normalize(extra, dim=0)], 1)
    size = (residuals @ found).square().mean(0).sqrt()
    return found / size.clamp_min(1e-12)


def pack_bits(bits: Tensor) -> Tensor:
    """
    Bits into bytes, first bit lowest; a last byte that is not full is filled with zeros.

    :param bits: (n, m), +1 or -1 (any number: zero and above is a set bit).
    :returns: (n, ceil(m / 8)) uint8.

    >>> pack_bits(torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]])).tolist()
    [[5, 1]]
    """
    m = bits.shape[-1]
    flags = F.pad((bits >= 0).to(torch.uint8), (0, -m % 8)).unflatten(-1, (-1, 8))
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return (flags * powers).sum(-1, dtype=torch.uint8)


def bit_table(dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
    """
    The eight bits of each byte as -1 and +1: the table by which codes are unpacked.

    :returns: (256, 8).

    >>> bit_table()[5].tolist()
    [1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    """
    values = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)
    return ((values & 1) * 2 - 1).to(dtype)


def unpack_bits(codes: Tensor, bits: int, table: Tensor) -> Tensor:
    """
    Bytes into bits: the inverse of `pack_bits`.

    :param codes: (n, ceil(bits / 8)) uint8.
    :param bits: m.
    :param table: of `bit_table`.
    :returns: (n, m) of -1 and +1, in the table's dtype.

    >>> unpack_bits(torch.tensor([[5, 1]], dtype=torch.uint8), 9, bit_table()).tolist()
    [[1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]]
    """
    return table[codes.int()].flatten(-2)[..., :bits]
