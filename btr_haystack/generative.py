# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Fusion-in-Decoder over a split encoder: one set of weights that finds spans and writes answers."""

import copy
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from btr_haystack._transformers import (
    BaseModelOutput,
    GenerationConfig,
    PreTrainedModel,
    QuestionAnsweringModelOutput,
    T5ForConditionalGeneration,
)
from btr_haystack.config import BTRConfig
from btr_haystack.digest import WRITING
from btr_haystack.errors import ModelError
from btr_haystack.families import T5Family, log_sizes
from btr_haystack.generation_settings import check_generation, check_together, check_token_ids, fields_of
from btr_haystack.merge import compact, earliest, match, merge
from btr_haystack.model import BTRForQuestionAnswering, SplitOutput, hub_arguments
from btr_haystack.model_files import ModelFiles, model_files
from btr_haystack.rows import alike

MERGE_EVERY = 3  # decoder layers between two merges, if nothing else is said
BLOCK = 2048  # tokens among which similar ones are sought: the work grows with tokens, not with their square
DEFAULT_NEW_TOKENS = 32
DECODER = re.compile(r"(?:encoder\.|reader\.)?decoder\.block\.")
ROUNDING = 0.01  # of a row's largest number; 8 bits, twice, take less


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """
    What a decoder layer sees of the passages of some questions.

    :param states: (questions, tokens, d).
    :param sizes: (questions, tokens) how many tokens each one stands for; 0 for padding.
    """

    states: Tensor
    sizes: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """The views of the layers, and each of them repeated for beams."""

    views: Sequence[View]
    repeated: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def to_layer(self, number: int, rows: int) -> tuple[Tensor, Tensor]:
        """(rows, tokens, d) states and (rows, 1, 1, tokens) biases, made once for all layers and steps."""
        view = self.views[number]
        times = rows // len(view.states)
        if (id(view), times) not in self.repeated:
            states, bias = view.states, log_sizes(view.sizes, view.states.dtype)
            if times > 1:
                states, bias = states.repeat_interleave(times, 0), bias.repeat_interleave(times, 0)
            self.repeated[id(view), times] = (states, bias)
        return self.repeated[id(view), times]


_SHOWN: ContextVar[_Shown | None] = ContextVar("shown", default=None)  # threads write with one model at the same time


@contextmanager
def _showing(views: Sequence[View] | None) -> Iterator[None]:
    """Meanwhile each decoder layer sees its own view; with None, all see the encoder's outputs."""
    before = _SHOWN.set(None if views is None else _Shown(views))
    try:
        yield
    finally:
        _SHOWN.reset(before)


def _show(number: int, _module: nn.Module, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Before a layer's cross-attention: what it sees, where tokens were merged."""
    shown = _SHOWN.get()
    if shown is None:
        return None
    states, bias = shown.to_layer(number, len(given[0]))
    return given, {**named, "key_value_states": states, "position_bias": bias, "mask": None}


class BTRForConditionalGeneration(BTRForQuestionAnswering):
    """
    A Fusion-in-Decoder reader (Izacard and Grave, 2021) whose encoder can be split, and its passages kept as bits.

    Rows [question; passage] are encoded each for itself; the decoder attends to the tokens of all of them. The encoder,
    span head and codes are those of `BTRForQuestionAnswering`, which can be loaded from the same folder and reads the
    same store.

    :param config: with a T5 configuration inside.
    :raises ModelError: for an encoder without a decoder.
    """

    _keys_to_ignore_on_load_unexpected: list[str] = []  # noqa: RUF012

    def __init__(self, config: BTRConfig) -> None:
        super().__init__(config)
        for number, block in enumerate(self.encoder.decoder.block):
            block.layer[1].EncDecAttention.register_forward_pre_hook(partial(_show, number), with_kwargs=True)

    @staticmethod
    def _new_encoder(config: BTRConfig) -> PreTrainedModel:
        if config.encoder.model_type != "t5":
            msg = f"a model of type {config.encoder.model_type!r} has no decoder and cannot write; expected 't5'"
            raise ModelError(msg)
        config.encoder.is_encoder_decoder = config.encoder.use_cache = True  # an encoder saved alone says otherwise
        if getattr(config.encoder, "decoder_start_token_id", None) is None:
            config.encoder.decoder_start_token_id = config.encoder.pad_token_id
        return T5ForConditionalGeneration(config.encoder)

    @staticmethod
    def _names_in(model_type: str) -> dict[str, str]:  # noqa: ARG004
        """Weights of T5, of FiD (wrapped encoder and blocks) and of Atlas ("reader.") under their names here."""
        return {
            r"^(?:reader\.)?(shared|decoder|lm_head)\.": r"encoder.\1.",
            r"^(?:reader\.)?encoder\.(block|final_layer_norm|embed_tokens)\.": r"encoder.encoder.\1.",
            r"^encoder\.encoder\.block\.(\d+)\.module\.": r"encoder.encoder.block.\1.",
        }

    @classmethod
    def from_pretrained(cls, folder: str | Path | ModelFiles, *args: Any, **kwargs: Any) -> Self:
        """
        Load weights and configuration, see `BTRPreTrainedModel.from_pretrained`.

        :param folder: folder or hub id, or the files that were found there.
        :param args: see there.
        :param kwargs: see there.
        :raises ModelError: where there is no decoder among the weights.
        """
        told = kwargs.pop("output_loading_info", False)
        files = model_files(folder, **hub_arguments(kwargs))
        talks = logging.getLogger("transformers.modeling_utils")
        talks.addFilter(_not_of_ties)
        try:
            found: Any = super().from_pretrained(files, *args, output_loading_info=True, **kwargs)
        finally:
            talks.removeFilter(_not_of_ties)
        model, report = found
        if missing := sorted(name for name in report["missing_keys"] if name.startswith("encoder.decoder.block.")):
            raise _no_decoder(files.name, missing[0])
        config = files.generation_config()
        if config is not None:  # a model need not have one
            for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
                if getattr(config, name) is None:
                    setattr(config, name, getattr(model.config.encoder, name))
            model.encoder.generation_config = config
        return found if told else model

    @classmethod
    def _check_parts(cls, files: ModelFiles, shapes: dict[str, tuple[int, ...]]) -> None:
        """Refuse weights without a decoder."""
        if not any(DECODER.match(name) for name in shapes):
            raise _no_decoder(files.name, "encoder.decoder.block.0.layer.0.layer_norm.weight")

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """
        Save weights, configuration, and how answers are generated, see `BTRPreTrainedModel.save_pretrained`.

        :param save_directory: the folder.
        :param kwargs: of `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.encoder.generation_config.save_pretrained(save_directory)

    @classmethod
    def with_decoder_of(cls, decoder: str | Path, reader: BTRForQuestionAnswering, **kwargs: Any) -> Self:
        """
        A reader's encoder, span head and codes with the decoder of another model.

        :param decoder: folder or hub id of a T5 sequence-to-sequence model, or of a BTR model that can write.
        :param reader: its encoder must be of the same kind and size.
        :param kwargs: for `from_pretrained`.
        :raises ModelError: where encoder and decoder do not fit.
        """
        model = cls.from_reader(decoder, **kwargs)
        encoder, theirs = copy.deepcopy(reader.config.encoder), model.config.encoder
        for name in ("num_decoder_layers", "decoder_start_token_id", "scale_decoder_outputs"):
            setattr(encoder, name, getattr(theirs, name))
        whole = cls(BTRConfig(**{**reader.config.to_dict(), "encoder": encoder}))
        writing = {name: weight for name, weight in model.state_dict().items() if name.startswith(WRITING)}
        ours = {name: weight.shape for name, weight in whole.state_dict().items() if name.startswith(WRITING)}
        shapes = {name: weight.shape for name, weight in writing.items()}
        differing = sorted(name for name in ours.keys() | shapes.keys() if ours.get(name) != shapes.get(name))
        acts = (encoder.dense_act_fn, theirs.dense_act_fn)
        if differing or acts[0] != acts[1]:
            what = f"{differing[0]} has another shape, or is missing" if differing else f"activations are {acts}"
            msg = f"the decoder of {decoder} does not fit the reader: {what}"
            raise ModelError(msg)
        for part in ("decoder.embed_tokens", "lm_head"):
            weight = writing.pop(f"encoder.{part}.weight")
            if not _same_but_rounded(weight, reader.family.embeddings):  # else they stay one tensor
                whole.encoder.get_submodule(part).weight = nn.Parameter(weight.clone())
        whole.load_state_dict({**writing, **reader.state_dict()}, strict=False)
        whole.encoder.generation_config = model.encoder.generation_config
        return whole.to(reader.dtype)

    def joint(self, input_ids: Tensor, attention_mask: Tensor | None, **extra: Tensor) -> Tensor:
        """See `BTRForQuestionAnswering.joint`."""
        states: Tensor = self.encoder.encoder(input_ids=input_ids, attention_mask=attention_mask, **extra)[0]
        return states

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        group: Tensor | None = None,
        labels: Tensor | None = None,
        merged_across: float = 0.0,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput:
        """
        Start and end logits, and how well the answers are written.

        :param input_ids: of `BTRForQuestionAnswering.forward`, as the two that follow.
        :param group: (rows,) the question of each row, ascending; the decoder attends to all rows of its question.
        :param labels: (questions, tokens) what is to be written, -100 for nothing.
        :param merged_across: share of a question's tokens that is merged before the decoder and in it; see `views_of`.
        :param inputs: of `BTRForQuestionAnswering.forward`.
        :returns: as there; with labels, `writing` is the mean cross entropy of their tokens.
        :raises ValueError: for labels without group, and for `merged_across` with gradient checkpointing.
        """
        if labels is not None and group is None:
            msg = "labels are given without group, the question of each row"
            raise ValueError(msg)
        if merged_across and self.training and self.encoder.is_gradient_checkpointing:
            msg = f"merged_across is {merged_across}, but with gradient checkpointing it would be undone; expected 0"
            raise ValueError(msg)
        out: SplitOutput = super().forward(input_ids, attention_mask, token_type_ids, **inputs)
        if labels is None or group is None:
            return out
        if not bool((labels >= 0).any()):
            out.writing = 0 * self.encoder.decoder.final_layer_norm.weight.sum()  # so that there is a gradient
            return out
        if input_ids is not None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            length = mask.sum(1)
        else:
            question, passage = inputs["pairs"].T
            length = inputs["question_mask"].sum(1)[question] + inputs["passage_mask"].sum(1)[passage]
        states = out.states
        if states is None:
            msg = "the reader gave no states to write from"
            raise RuntimeError(msg)
        present = torch.arange(states.shape[1], device=states.device)[None] < length[:, None]
        sizes = torch.zeros(len(labels), dtype=length.dtype, device=length.device).index_add(0, group, length)
        out.writing = self._writing_loss(states[present].split(sizes.tolist()), sizes, labels, merged_across)
        return out

    def _writing_loss(
        self, fused: Sequence[Tensor], sizes: Tensor, labels: Tensor, merged_across: float = 0.0
    ) -> Tensor:
        """
        Mean cross entropy of the labels' tokens; questions of like size run together, so that little is padding.

        :param fused: for each question (tokens, d), the states of all its rows.
        :param sizes: (questions,) their tokens.
        :param labels: (questions, tokens) what is to be written, -100 for nothing.
        :param merged_across: of `forward`.
        """
        wanted = (labels >= 0).any(1).nonzero()[:, 0].cpu().numpy()
        total = sizes.new_zeros((), dtype=torch.float32)
        for batch in alike(sizes.cpu().numpy()[wanted], sizes.device):
            chosen = wanted[batch].tolist()
            states = pad_sequence([fused[i] for i in chosen], batch_first=True)
            seen = torch.arange(states.shape[1], device=states.device)[None] < sizes[chosen][:, None]
            theirs, views = labels[chosen], None
            if merged_across:
                views = views_of(
                    View(states, seen.float()), len(self.encoder.decoder.block), merged_across, MERGE_EVERY
                )
                states, seen = views[0].states, views[0].sizes > 0
            with _showing(views):
                logits = self.encoder(
                    encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=seen.long(), labels=theirs
                ).logits
            total = total + F.cross_entropy(logits.flatten(0, 1).float(), theirs.flatten(), reduction="sum")
        return total / (labels >= 0).sum()

    def upper_merged(
        self, states: Tensor, mask: Tensor | None, question: int, share: float, first: int
    ) -> tuple[Tensor, Tensor]:
        """
        The layers from `first` on, after each of which a share of the passage tokens is merged into similar ones.

        :param states: (rows, tokens, d) joint rows [question; passage].
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :param question: tokens of the question, which are never merged.
        :param share: of the tokens that are left of a passage, at each layer; from 0 to 0.5.
        :param first: layer to begin with: k, or k + 1 where `first_upper` has run.
        :returns: (rows, fewer tokens, d) with the closing norm, and their sizes (rows, fewer tokens).
        """
        family = self.family
        if not isinstance(family, T5Family):
            msg = f"runtime compression needs relative positions; {self.config.encoder.model_type!r} has none"
            raise ModelError(msg)
        sizes = torch.ones(states.shape[:2], device=states.device) if mask is None else mask.float()
        places = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        for layer in range(first, len(family.layers)):
            states = family.run_merged(states, places, sizes, layer, layer + 1)
            present = sizes > 0
            passage = present & (torch.arange(states.shape[1], device=states.device) >= question)
            target = match(states, passage, present, (passage.sum(1) * share).long())
            places = earliest(places, target)
            states, sizes = merge(states, sizes, target)
        return family.close(states), sizes

    def generation(self, **settings: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        """
        How answers are generated: what is given goes before what the model's folder says.

        :param settings: of `check_generation`, and `tokenizer`, which stop strings need.
        :returns: the whole configuration, and arguments of `GenerationMixin.generate` that are no part of it.
        :raises ValueError: for settings that are not let through, see `check_generation`.
        """
        t5: Any = self.encoder
        check_generation({name: value for name, value in settings.items() if name != "tokenizer"})
        given = settings.pop("generation_config", None)
        given = GenerationConfig(**given) if isinstance(given, dict) else given
        config = copy.deepcopy(given or t5.generation_config)
        others = config.update(**{**settings, "return_dict_in_generate": True, "output_logits": True})
        if config.max_new_tokens is None and config.max_length is None:
            config.max_new_tokens = DEFAULT_NEW_TOKENS
        if config.decoder_start_token_id is None:
            config.decoder_start_token_id = t5.config.decoder_start_token_id
        check_together(fields_of(config))
        check_token_ids(fields_of(config), t5.config.vocab_size)
        return config, others

    @torch.inference_mode()
    def write(self, views: Sequence[View], **settings: Any) -> tuple[Tensor, Tensor]:
        """
        Generate by transformers' own means: greedy, beams, sampling, stop strings, a `GenerationConfig`.

        Keys and values of the cross-attention are computed once.

        :param views: what each decoder layer sees, or one view for all of them.
        :param settings: of `generation`.
        :returns: token ids (answers, longest) and the mean log-probability of each answer's tokens (answers,).
        :raises ValueError: for settings that are not let through, see `check_generation`.
        """
        t5: Any = self.encoder
        config, others = self.generation(**settings)
        first, merged = views[0], len(views) > 1 or bool((views[0].sizes > 1).any())
        layers = len(t5.decoder.block)
        with _showing((views if len(views) > 1 else [first] * layers) if merged else None):
            out = t5.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=first.states),
                attention_mask=(first.sizes > 0).long(),
                generation_config=config,
                **others,
            )
        beams = getattr(out, "beam_indices", None)
        scores = _step_scores(out.sequences, out.logits, beams)
        written = out.sequences[:, 1:]  # the first is the token that decoding starts from
        if beams is not None:
            counted = beams[:, : scores.shape[1]] >= 0
        else:
            token = (written[:, : scores.shape[1]] != t5.config.pad_token_id).long()
            counted = token.flip(1).cumsum(1).flip(1) > 0  # what is not padding behind the end
        return written, scores.masked_fill(~counted, 0).sum(1) / counted.sum(1).clamp_min(1)


def _no_decoder(name: str, missing: str) -> ModelError:
    return ModelError(
        f"{name} has no decoder and cannot write: its weights such as {missing} are missing. "
        "Give a T5 sequence-to-sequence model, or a BTR model that was trained to write"
    )


def _step_scores(sequences: Tensor, logits: Sequence[Tensor], beams: Tensor | None) -> Tensor:
    """
    Log-probability of each written token, step by step: all steps together would take their logits' memory again.

    :param sequences: (answers, tokens) token ids, those that decoding starts from included.
    :param logits: for each step (rows, vocabulary).
    :param beams: (answers, tokens) the row that each token was written in, below 0 behind the end; None for its own.
    :returns: (answers, steps); 0 where there is no row.
    """
    steps = len(logits) if beams is None else int((beams >= 0).sum(1).max())
    own = torch.arange(len(sequences), device=sequences.device)
    found = []
    for step, token in enumerate(sequences[:, sequences.shape[1] - steps :].T):
        row = own if beams is None else beams[:, step]
        score = logits[step].log_softmax(-1)[row.clamp_min(0), token]
        found.append(score.masked_fill(row < 0, 0))
    return torch.stack(found, 1)


def _same_but_rounded(one: Tensor, other: Tensor) -> bool:
    """Whether two matrices are the same but for rounding, such as that of rows to 8 bits."""
    one, other = one.float(), other.float()
    return one.shape == other.shape and bool(((one - other).abs().amax(1) <= ROUNDING * other.abs().amax(1)).all())


def _not_of_ties(record: logging.LogRecord) -> bool:
    """T5 v1.1 has a language model head of its own, and each loading warns that it is not tied."""
    return "tied weights mapping" not in record.getMessage()


def views_of(fused: View, layers: int, share: float, every: int) -> list[View]:
    """
    What each decoder layer sees: similar tokens are merged before the first layer and again every so many.

    :param fused: of all passages.
    :param layers: of the decoder.
    :param share: of the tokens that are left, each time; 0 gives every layer the same.
    :param every: layers that see the same (g of the paper).
    :returns: one view a layer.
    """
    views: list[View] = []
    for layer in range(layers):
        if share and layer % every == 0:
            fused = _merged_in_blocks(fused, share)
        views.append(fused)
    return views


def _merged_in_blocks(view: View, share: float) -> View:
    questions, tokens, width = view.states.shape
    beyond = -tokens % min(BLOCK, tokens)
    states = F.pad(view.states, (0, 0, 0, beyond)).reshape(-1, min(BLOCK, tokens), width)
    sizes = F.pad(view.sizes, (0, beyond)).reshape(len(states), -1)
    present = sizes > 0
    target = match(states, present, present, (present.sum(1) * share).long())
    states, sizes = merge(states, sizes, target)
    return View(*compact(states.reshape(questions, -1, width), sizes.reshape(questions, -1)))
