# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The three stages' losses in transformers' Trainer."""

import random
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from btr_haystack._transformers import Trainer
from btr_haystack.model import BTRForQuestionAnswering, join
from btr_haystack.padding import largest_share
from btr_haystack.rows import by_length
from btr_haystack.training import losses
from btr_haystack.windows import Frame

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """
    How much each loss counts.

    :param shared: spans competing across the passages of a question.
    :param imitation: divergence from the teacher's spans.
    :param distillation: squared error to the teacher's upper states.
    :param recovery: squared error between a state and its code.
    :param first_look: spans competing across passages after the first upper layer, by which passages can be pruned.
    :param writing: answers written by the decoder; above 0, the model has one.
    :param attended: r, the share of passage tokens that the distillation loss looks at.
    """

    shared: float = 0.5
    imitation: float = 1.0
    distillation: float = 1.0
    recovery: float = 1.0
    first_look: float = 0.0
    writing: float = 0.0
    attended: float = 0.5

    @property
    def teacher(self) -> bool:
        """Whether there is anything to ask a teacher for."""
        return self.imitation > 0 or self.distillation > 0


@dataclass(frozen=True)
class Places:
    """
    Where things stand in the rows of a batch.

    :param ids: (rows, tokens) joint token ids.
    :param mask: (rows, tokens).
    :param segments: (rows, tokens) 1 for the passage.
    :param inside: (rows, tokens) bool: passage tokens, without special tokens.
    :param allowed: `inside` and the null place.
    :param targets: (rows, 2).
    :param answered: (rows,) bool.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    inside: Tensor
    allowed: Tensor
    targets: Tensor
    answered: Tensor

    def rows(self, chosen: Tensor) -> "Places":
        """The chosen rows, a mask (rows,) or numbers of rows, as wide as they need to be."""
        width = int(self.mask[chosen].sum(1).max())
        cut = {name: getattr(self, name)[chosen, :width] for name in ("ids", "mask", "segments", "inside", "allowed")}
        return Places(targets=self.targets[chosen], answered=self.answered[chosen], **cut)


def places_of(batch: dict[str, Tensor], frame: Frame, *, null_first: bool, pad: int) -> Places:
    """Joint rows and target places of a batch of `collate`."""
    pairs = batch["pairs"]
    ids, mask = join(
        batch["question_ids"][..., None], batch["question_mask"], batch["passage_ids"][..., None],
        batch["passage_mask"], pairs,
    )  # fmt: skip
    ids = ids[..., 0].masked_fill(mask == 0, pad)
    question_length = batch["question_mask"].sum(1)[pairs[:, 0]]
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    segments = ((place >= question_length[:, None]) & (mask == 1)).long()
    last = mask.sum(1) - len(frame.closing)
    inside = (place >= question_length[:, None]) & (place < last[:, None])
    null = torch.zeros_like(question_length) if null_first else question_length - len(frame.middle)
    answered = batch["answers"][:, 0] >= 0
    targets = torch.where(answered[:, None], batch["answers"] + question_length[:, None], null[:, None])
    return Places(ids, mask, segments, inside, inside | (place == null[:, None]), targets, answered)


class ReaderTrainer(Trainer):
    """
    Trains a joint reader (k = 0), a decomposed one (no bits) or a binarised one; which, the model's settings say.

    :param teacher: joint reader whose spans and states are imitated; None for stage 1.
    :param frame: special tokens of the tokenizer.
    :param pad: padding token id.
    :param weights: of the losses.
    :param nested: numbers of bits, one of which is drawn for each step, or all; codes can then be cut to it.
    :param nested_shares: shares of the tokens that keep bits, one of which is drawn for each step, or the model's own.
    :param merged_across: share of a question's tokens that is merged before the decoder, and again in it.
    """

    def __init__(
        self,
        *args: Any,
        teacher: BTRForQuestionAnswering | None,
        frame: Frame,
        pad: int,
        weights: Weights,
        nested: tuple[int, ...] = (),
        nested_shares: tuple[float, ...] = (),
        merged_across: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        self.teacher = teacher.eval().requires_grad_(False).to(self.args.device, dtype) if teacher else None
        self.frame = frame
        self.pad = pad
        self.weights = weights
        self.nested = nested
        self.nested_shares = nested_shares
        self.merged_across = merged_across
        self._parts: dict[str, list[Tensor]] = {}

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """Sum of the losses of this stage."""
        unwrapped: BTRForQuestionAnswering = self.accelerator.unwrap_model(model)
        places = places_of(inputs, self.frame, null_first=unwrapped.family.null_first, pad=self.pad)
        given: dict[str, Any] = {}
        if self.weights.writing:
            given |= {
                "group": inputs["group"],
                "labels": inputs["labels"],
                "merged_across": self.merged_across * model.training,
            }
        if unwrapped.config.k == 0:
            given |= {"input_ids": places.ids, "attention_mask": places.mask, "token_type_ids": places.segments}
        else:
            given |= {name: inputs[name] for name in SPLIT_INPUTS}
            if model.training:
                given |= {"bits": self._drawn("bits", self.nested)}
                given |= {"coded_share": self._drawn("share", self.nested_shares)}
        out = model(**given)
        start, end = out.start_logits, out.end_logits
        parts = {"span": losses.span_loss(start, end, places.allowed, places.targets)}
        parts["shared"] = self.weights.shared * losses.shared_span_loss(
            start, end, places.inside, places.targets, inputs["group"], places.answered
        )
        if self.weights.first_look and unwrapped.config.k:
            look = losses.shared_span_loss(
                out.first_look[0], out.first_look[1], places.inside, places.targets, inputs["group"], places.answered
            )
            parts["first_look"] = self.weights.first_look * look
        if self.teacher is not None and bool(places.answered.any()):
            taught = places.rows(places.answered)  # where there is nothing to find, the task says all there is to say
            their_start, their_end, their_states, attention = by_length(
                taught.mask.sum(1), lambda numbers: self._ask_teacher(taught.rows(numbers))
            )
            rows, width = places.answered, taught.ids.shape[1]
            agree = losses.imitation_loss(start[rows, :width], their_start, taught.allowed)
            agree = agree + losses.imitation_loss(end[rows, :width], their_end, taught.allowed)
            parts["imitation"] = self.weights.imitation * agree / 2
            chosen = largest_share(attention, taught.inside, self.weights.attended)
            distance = losses.distillation_loss(out.states[rows, :width], their_states, chosen)
            parts["distillation"] = self.weights.distillation * distance
        if out.writing is not None:
            parts["writing"] = self.weights.writing * out.writing
        if out.recovery is not None:
            parts["recovery"] = self.weights.recovery * out.recovery
        for name, value in parts.items() if model.training else ():
            self._parts.setdefault(name, []).append(value.detach().float())
        loss = torch.stack([value.float() for value in parts.values()]).sum()
        return (loss, out) if return_outputs else loss

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        """In order: the groups are shuffled already, and a run that goes on with more steps must not meet old ones."""
        return SequentialSampler(self.train_dataset)

    def _drawn(self, name: str, choices: tuple[T, ...]) -> T | None:
        """One of the choices for this step; None for what the model has itself."""
        rng = random.Random(f"{self.args.seed}/{self.state.global_step}/{name}")  # noqa: S311
        return rng.choice((None, *choices))

    @torch.no_grad()
    def _ask_teacher(self, places: Places) -> list[Tensor]:
        """
        The teacher's start and end logits, last states, and the attention that each token gets from the question.

        The attention of a T5 teacher is without its relative bias: what a token says counts, not where it stands.
        """
        teacher = self.teacher
        if teacher is None:
            msg = "this stage has no teacher"
            raise RuntimeError(msg)
        seen: dict[str, Tensor] = {}
        query, key = teacher.family.attention_projections()
        hooks = [
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
            for name, module in (("query", query), ("key", key))
        ]
        try:
            out = teacher(input_ids=places.ids, attention_mask=places.mask, token_type_ids=places.segments)
        finally:
            for hook in hooks:
                hook.remove()
        asking = ((places.segments == 0) & (places.mask == 1)).float()
        heads = teacher.config.encoder.num_attention_heads
        q, k = (seen[name].float().unflatten(-1, (heads, -1)) for name in ("query", "key"))
        width = int(asking.sum(1).max())
        scale = 1.0 if teacher.config.encoder.model_type == "t5" else q.shape[-1] ** -0.5
        scores = torch.einsum("bihd,bjhd->bhij", q[:, :width], k) * scale
        scores = scores.masked_fill(places.mask[:, None, None] == 0, losses.LOW).softmax(-1).mean(1)
        return [out.start_logits, out.end_logits, out.states, (scores * asking[:, :width, None]).sum(1)]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds each loss's mean since the last report."""
        if "loss" in logs:
            logs |= {f"loss_{name}": torch.stack(values).mean().item() for name, values in self._parts.items()}
            self._parts.clear()
        super().log(logs, *args, **kwargs)


SPLIT_INPUTS = ("question_ids", "question_mask", "passage_ids", "passage_mask", "pairs")
