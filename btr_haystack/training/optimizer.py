# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Muon for the encoder's matrices, AdamW for everything else, as one optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

DECAY = 0.01


class MuonAdamW(Optimizer):
    """
    Two optimizers that step together, with one list of parameter groups for the scheduler.

    Muon makes each matrix's update orthogonal (Jordan et al., 2024), scaled to AdamW's size (Liu et al., 2025), so
    that both take the same rates; it is defined for matrices alone.

    :param matrices: weights of two dimensions.
    :param rest: parameter groups for AdamW, each with its `lr`.
    :param lr: of the matrices.
    """

    def __init__(self, matrices: list[nn.Parameter], rest: list[dict[str, Any]], lr: float) -> None:
        self.parts: list[Optimizer] = [
            Muon(matrices, lr=lr, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            AdamW(rest, weight_decay=DECAY, fused=True),
        ]
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Restore both.

        :param state_dict: of `state_dict`.
        """
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def new_optimizer(
    model: nn.Module, new: list[nn.Parameter], *, kind: str, learning_rate: float, new_learning_rate: float
) -> Optimizer:
    """
    The optimizer of a stage.

    :param model: its weights that need a gradient are trained.
    :param new: weights that start untrained, with a rate of their own.
    :param kind: "muon" (with AdamW for vectors, embeddings and `new`) or "adamw".
    :param learning_rate: of all but `new`.
    :param new_learning_rate: of `new`.
    """
    known = {id(weight) for weight in new}
    body = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in known]
    head = {"params": new, "lr": new_learning_rate}
    if kind == "adamw":
        return AdamW([{"params": body, "lr": learning_rate}, head], weight_decay=DECAY, fused=True)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [weight for weight in body if weight.ndim == 2 and id(weight) not in tables]  # noqa: PLR2004
    turned = {id(weight) for weight in matrices}
    rest = [weight for weight in body if id(weight) not in turned]
    return MuonAdamW(matrices, [{"params": rest, "lr": learning_rate}, head], learning_rate)
