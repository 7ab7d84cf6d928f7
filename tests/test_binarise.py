# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from btr_haystack import binarise

seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seed=seeds, tokens=st.integers(0, 20), bits=st.integers(0, 70))
@settings(max_examples=50, deadline=None)
def test_packing_round_trip_agrees_with_numpy(seed, tokens, bits):
    signs = binarise.sign(normal(seed, tokens, bits))
    packed = binarise.pack_bits(signs)
    assert packed.shape == (tokens, -(-bits // 8))
    assert np.array_equal(packed.numpy(), np.packbits(signs.numpy() > 0, axis=1, bitorder="little"))
    assert torch.equal(binarise.unpack_bits(packed, bits, binarise.bit_table()), signs)


def test_sign_has_the_gradient_of_tanh():
    z = torch.tensor([-1.5, -0.1, 0.0, 0.4], requires_grad=True)
    out = binarise.sign(z)
    assert out.tolist() == [-1.0, -1.0, 1.0, 1.0]
    out.sum().backward()
    assert torch.allclose(z.grad, 1 - torch.tanh(z.detach()) ** 2)


@given(seed=seeds, size=st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_itq_gives_a_rotation_that_does_not_raise_the_quantisation_error(seed, size):
    z = normal(seed, 200, size)
    rotation = binarise.itq(z)
    assert torch.allclose(rotation @ rotation.T, torch.eye(size), atol=1e-4)

    def error(turned: torch.Tensor) -> float:
        return (turned - torch.sign(turned)).square().sum().item()

    start = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0))).Q
    assert error(z @ rotation) <= error(z @ start) * (1 + 1e-4)


@given(seed=seeds, bits=st.integers(0, 24))
@settings(max_examples=20, deadline=None)
def test_projection_is_free_in_the_number_of_bits_and_has_unit_scale(seed, bits):
    residuals = normal(seed, 300, 8) * torch.arange(1, 9)
    p = binarise.projection(residuals, bits)
    assert p.shape == (8, bits)
    if bits:
        assert torch.allclose((residuals @ p).square().mean(0).sqrt(), torch.ones(bits), atol=1e-3)


def test_ridge_equals_numpy_least_squares():
    x, y = normal(0, 100, 6), normal(1, 100, 3)
    expected = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    assert np.allclose(binarise.ridge(x, y, strength=0.0).numpy(), expected, atol=1e-4)


def test_more_bits_lose_less():
    residuals = normal(3, 2000, 16) * torch.linspace(0.2, 2.0, 16)
    errors = []
    for bits in (0, 4, 8, 16, 32, 64):
        signs = binarise.sign(residuals @ binarise.projection(residuals, bits))
        decoded = signs @ binarise.ridge(signs, residuals) if bits else torch.zeros_like(residuals)
        errors.append((decoded - residuals).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]
