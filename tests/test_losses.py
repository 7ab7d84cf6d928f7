# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
import torch.nn.functional as F

from btr_haystack.training import losses


def test_span_loss_is_cross_entropy_over_the_allowed_places():
    start, end = torch.randn(3, 6), torch.randn(3, 6)
    allowed = torch.ones(3, 6, dtype=torch.bool)
    allowed[:, 4:] = False
    targets = torch.tensor([[0, 2], [1, 1], [3, 3]])
    expected = (F.cross_entropy(start[:, :4], targets[:, 0]) + F.cross_entropy(end[:, :4], targets[:, 1])) / 2
    assert losses.span_loss(start, end, allowed, targets) == pytest.approx(expected.item(), abs=1e-4)


def test_shared_loss_of_one_row_a_question_is_the_span_loss():
    start, end = torch.randn(4, 5), torch.randn(4, 5)
    everywhere = torch.ones(4, 5, dtype=torch.bool)
    targets = torch.tensor([[0, 1], [2, 3], [4, 4], [1, 2]])
    alone = losses.shared_span_loss(start, end, everywhere, targets, torch.arange(4), torch.ones(4, dtype=torch.bool))
    assert alone.item() == pytest.approx(losses.span_loss(start, end, everywhere, targets).item(), abs=1e-5)


def test_spans_of_a_wrong_passage_compete():
    start, end = torch.zeros(2, 4), torch.zeros(2, 4)
    everywhere, targets = torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.long)
    answered, group = torch.tensor([True, False]), torch.tensor([0, 0])
    before = losses.shared_span_loss(start, end, everywhere, targets, group, answered)
    start[1, 2] = 5.0
    assert losses.shared_span_loss(start, end, everywhere, targets, group, answered) > before
    assert losses.shared_span_loss(start, end, everywhere, targets, torch.tensor([0, 1]), answered) < before


def test_nothing_to_share_is_no_loss():
    out = losses.shared_span_loss(
        torch.ones(1, 3), torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long),
        torch.tensor([0]), torch.tensor([False]),
    )  # fmt: skip
    assert out.item() == 0.0


def test_imitation_and_distillation_vanish_only_at_the_teacher():
    logits, allowed = torch.randn(2, 5), torch.ones(2, 5, dtype=torch.bool)
    logits[:, 0], logits[:, 4] = 9.0, -9.0
    assert losses.imitation_loss(logits, logits + 3.0, allowed).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.imitation_loss(logits, logits.flip(1), allowed).item() > 0.01
    states = torch.randn(2, 5, 3)
    assert losses.distillation_loss(states, states, allowed).item() == 0.0
    assert losses.distillation_loss(torch.zeros_like(states), states, allowed).item() == pytest.approx(1.0)
