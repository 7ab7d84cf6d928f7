# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The split reader as a transformers model: one set of weights, read jointly or from codes."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from btr_haystack import binarise, int8
from btr_haystack._transformers import (
    AutoModelForQuestionAnswering,
    PreTrainedConfig,
    PreTrainedModel,
    QuestionAnsweringModelOutput,
)
from btr_haystack.config import BTRConfig
from btr_haystack.errors import ModelError, told_as_damage
from btr_haystack.families import Family, family_of, new_encoder
from btr_haystack.merge import pairs
from btr_haystack.model_files import ModelFiles, model_files, numbers_in
from btr_haystack.padding import largest_share
from btr_haystack.rows import by_length
from btr_haystack.word_match import WordMatch

SCALE_STEP = 0.0625  # stored scales: log rms in steps of 1/16, one byte a token
SCALE_ZERO = 128
HUB_ARGUMENTS = ("token", "revision", "cache_dir", "local_files_only", "subfolder")
LOADING = (
    "dtype",
    "torch_dtype",
    "device_map",
    "attn_implementation",
    "key_mapping",
    "ignore_mismatched_sizes",
    "output_loading_info",
)  # arguments of `from_pretrained` that say how a model is loaded
WITHOUT_EFFECT = ("use_safetensors", "trust_remote_code", "adapter_kwargs", "_from_auto", "_commit_hash")  # Auto's
NEW = ("binariser.", "qa_outputs.", "word_match.")  # what an ordinary reader lacks
FUSED_GELU = {"feed_forward_proj": "gated-gelu_pytorch_tanh", "dense_act_fn": "gelu_pytorch_tanh"}


class Binariser(nn.Module):
    """
    Codes of calibrated states: `y = p(token) + bits D`, bits = sign(((x - p(token)) * w) P) (`docs/method.md`).

    Three matrices: `prior` (e + 1, d), `projection` P (d, m) with the importance w multiplied in, `decoder` D (m, d).
    The sign code has `prior` = 0, `projection` = identity and a diagonal decoder (paper, section 3.1).

    :param config: says m and the kind of code.
    :param width: d, of the calibrated vector.
    :param features: e, width of the input embedding.
    """

    def __init__(self, config: BTRConfig, width: int, features: int) -> None:
        super().__init__()
        bits = config.bits or 0
        self.sign_code = config.code == "sign"
        self.prior = nn.Parameter(torch.zeros(features + 1, width))
        self.projection = nn.Parameter(torch.zeros(width, bits))
        self.decoder = nn.Parameter(torch.zeros(bits, width))

    @property
    def fitted(self) -> bool:
        """Whether there is anything in it: new codes are all zero and decode every passage to nothing."""
        return any(bool(weight.any()) for weight in self.parameters())

    @torch.no_grad()
    def fit(self, coded: Tensor, embeddings: Tensor, importance: Tensor) -> None:
        """
        Closed form from a sample of passage tokens.

        :param coded: (n, d) calibrated states.
        :param embeddings: (n, e) input embedding of each token.
        :param importance: (d,) weight of each coordinate.
        """
        if self.sign_code:
            bits = self.projection.shape[1]
            self.projection.copy_(torch.eye(coded.shape[1], bits))
            signs = binarise.sign(coded[:, :bits])
            level = (coded[:, :bits] * signs).mean(0)
            self.decoder[:, :bits] = torch.diag(level)
            self.prior[-1, bits:] = coded[:, bits:].mean(0)  # the scale, where there is one, at its mean
            return
        features = binarise.with_one(embeddings)
        prior = binarise.ridge(features, coded)
        residual = coded - features @ prior
        projection = importance[:, None] * binarise.projection(residual * importance, self.projection.shape[1])
        self.prior.copy_(prior)
        self.projection.copy_(projection)
        if self.projection.shape[1]:
            self.decoder.copy_(binarise.ridge(binarise.sign(residual @ projection), residual))

    def prior_of(self, embeddings: Tensor) -> Tensor:
        """(n, e) input embeddings -> (n, d): what the token id alone tells of the calibrated state."""
        return binarise.with_one(embeddings.to(self.prior.dtype)) @ self.prior

    def bits_of(self, coded: Tensor, prior: Tensor) -> Tensor:
        """(n, d) calibrated states and their priors -> (n, m) of -1 and +1; straight-through when training."""
        return binarise.sign((coded.to(prior.dtype) - prior) @ self.projection)


@dataclass
class SplitOutput(QuestionAnsweringModelOutput):
    """
    What split reading gives beside the logits.

    :param states: (pairs, tokens, d) after the last layer.
    :param recovery: mean squared error between float state and decoded code, relative to the float state.
    :param first_look: start and end logits that the span head gives after the first upper layer.
    :param writing: mean cross entropy of the answers' tokens, of a model that can write.
    """

    states: Tensor | None = None
    recovery: Tensor | None = None
    first_look: tuple[Tensor, Tensor] | None = None
    writing: Tensor | None = None


class BTRPreTrainedModel(PreTrainedModel):
    """Loading and saving."""

    config_class = BTRConfig
    config: BTRConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["T5Block", "BertLayer", "RobertaLayer", "ElectraLayer", "TransformerBlock", "MPNetLayer"]  # noqa: RUF012

    @classmethod
    def from_pretrained(
        cls, folder: str | Path | ModelFiles, *args: Any, config: BTRConfig | None = None, **kwargs: Any
    ) -> Self:
        """
        Load weights and configuration, from safetensors only: other files are pickles, which can run code.

        What a model's files say is checked before anything is made of it, see `ModelFiles`.

        :param folder: folder or hub id, or the files that were found there.
        :param args: of `PreTrainedModel.from_pretrained`.
        :param config: in place of the folder's own; weights of codes that it lacks are then new.
        :param kwargs: of `PreTrainedModel.from_pretrained`: `LOADING`, and where files are found.
        :raises ValueError: for other arguments.
        :raises ModelError: for files that are not read here, or do not fit each other.
        :raises OSError: where there is no such file.
        """
        if unknown := sorted(kwargs.keys() - {*LOADING, *HUB_ARGUMENTS, *WITHOUT_EFFECT}):
            known = ", ".join((*LOADING, *HUB_ARGUMENTS))
            msg = f"{unknown[0]} is {kwargs[unknown[0]]!r:.60}, which is not taken; expected some of: {known}"
            raise ValueError(msg)
        files = model_files(folder, **hub_arguments(kwargs))
        told = kwargs.get("output_loading_info", False)
        given = {name: value for name, value in kwargs.items() if name in LOADING} | {"output_loading_info": True}
        with told_as_damage(f"{files.name} cannot be loaded"):
            settings = files.config if config is None else config
            cls._check_sizes(files, settings, new=NEW if config is not None else ())
            unread = cls._keys_to_ignore_on_load_unexpected or []  # such as a decoder, which is half of the file
            weights = files.tensors(lambda name: not any(re.match(one, name) for one in unread))
            with _reported_of(files.name):
                found: Any = super().from_pretrained(None, *args, config=settings, state_dict=weights, **given)
        model, report = found
        wrong = [entry for entry in report["mismatched_keys"] if not str(entry[0]).startswith(NEW)]
        if wrong:
            msg = f"{files.name}: {wrong[0][0]} has the shape {tuple(wrong[0][1])}; expected {tuple(wrong[0][2])}"
            raise ModelError(msg)
        model.config.name_or_path = files.name
        return found if told else model

    @classmethod
    def _check_sizes(cls, files: ModelFiles, config: PreTrainedConfig, new: tuple[str, ...]) -> None:
        """
        Refuse settings that speak of more weights than the files hold: what is missing would be made, as large as told.

        :param new: what the names of weights begin with that the files may lack.
        """
        if not isinstance(config, BTRConfig):
            msg = (
                f"{files.name} is of type {config.model_type!r}; expected a BTR model, or from_reader to make one of it"
            )
            raise ModelError(msg)
        shapes = files.shapes()
        with torch.device("meta"):
            empty = cls(config)
        expected = {name: tuple(weight.shape) for name, weight in empty.named_parameters()}
        for name in expected.keys() & shapes.keys():
            if expected[name] != shapes[name] and not name.startswith(new):
                msg = (
                    f"{files.name}: {name} has the shape {shapes[name]}, but config.json means {expected[name]}: they "
                    "do not belong together"
                )
                raise ModelError(msg)
        cls._check_parts(files, shapes)
        needed = numbers_in({name: shape for name, shape in expected.items() if not name.startswith(new)})
        if needed > (held := numbers_in(shapes)):
            msg = (
                f"{files.name}: config.json means a model of {needed:,} numbers, but the files of its weights hold "
                f"{held:,}: they do not belong together, or weights are missing"
            )
            raise ModelError(msg)

    @classmethod
    def _check_parts(cls, files: ModelFiles, shapes: dict[str, tuple[int, ...]]) -> None:
        """Refuse weights that lack a whole part of the model."""

    def save_pretrained(self, save_directory: str | Path, *, int8_weights: bool = False, **kwargs: Any) -> None:
        """
        Save weights and configuration.

        :param save_directory: the folder.
        :param int8_weights: keep large matrices in 8 bits, with a scale a row; they load as floats again.
        :param kwargs: of `PreTrainedModel.save_pretrained`. Weights keep our names, whatever checkpoint they are of.
        :raises ValueError: for `push_to_hub` together with `int8_weights`.
        """
        if int8_weights and kwargs.get("push_to_hub"):
            msg = "push_to_hub would upload the weights before they are in 8 bits; save first, then upload the folder"
            raise ValueError(msg)
        super().save_pretrained(save_directory, **{"save_original_format": False, **kwargs})
        if int8_weights:
            int8.shrink_file(save_directory)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is getattr(self, "qa_outputs", None):
            nn.init.normal_(self.qa_outputs.weight, std=self.config.encoder.hidden_size**-0.5)
            nn.init.zeros_(self.qa_outputs.bias)
        elif isinstance(module, (Binariser, WordMatch)):
            for weight in module.parameters(recurse=False):
                nn.init.zeros_(weight)
        else:
            super()._init_weights(module)


class BTRForQuestionAnswering(BTRPreTrainedModel):
    """
    An extractive reader whose lower k layers can be run on passages alone, and kept as bits.

    Called with `input_ids` it is the ordinary joint reader of its weights (that is what
    `AutoModelForQuestionAnswering` gives); called with `question_ids`, `passage_ids` and `pairs` it reads split.

    :param config: with the base encoder's configuration inside.
    """

    _keys_to_ignore_on_load_unexpected = [r"^encoder\.decoder\.", r"^encoder\.lm_head\."]  # noqa: RUF012  # it can write

    def __init__(self, config: BTRConfig) -> None:
        super().__init__(config)
        self.encoder = self._new_encoder(config)
        self.qa_outputs = nn.Linear(config.encoder.hidden_size, 2)
        self.binariser: Binariser | None = None
        if config.bits is not None:
            width = config.encoder.hidden_size + self.family.stores_scale
            self.binariser = Binariser(config, width, self.family.embeddings.shape[1])
        self.word_match = WordMatch(config.encoder.hidden_size) if config.word_match else None
        self.post_init()

    @staticmethod
    def _new_encoder(config: BTRConfig) -> PreTrainedModel:
        return new_encoder(config.encoder)

    @property
    def family(self) -> Family:
        """The view on the encoder that knows how to split it."""
        return family_of(self.encoder, self.config.k)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's token embeddings."""
        module: nn.Module = self.encoder.get_input_embeddings()
        return module

    def lower(self, ids: Tensor, mask: Tensor | None, *, passage: bool) -> Tensor:
        """
        The first k layers over questions alone or passages alone (`docs/method.md`).

        :param ids: (rows, tokens) token ids, special tokens included.
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :param passage: passages start at position max_query_length and are segment 1.
        :returns: (rows, tokens, d).
        """
        start = self.config.max_query_length if passage else 0
        states = self.family.embed(ids, start=start, segment=int(passage))
        return self.family.run(states, mask, 0, self.config.k)

    def marked(self, states: Tensor, mask: Tensor | None, ids: Tensor, question: Tensor) -> Tensor:
        """
        What the upper layers are given: joint rows, with marks at shared tokens where the model has them.

        :param states: (rows, tokens, d) joint rows [question; passage; padding].
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :param ids: (rows, tokens) their token ids; anything at padding.
        :param question: (rows or 1,) tokens of each row's question.
        :returns: (rows, tokens, d).
        """
        if self.word_match is None:
            return states
        marked: Tensor = self.word_match(states, ids if mask is None else ids.masked_fill(mask == 0, -1), question)
        return marked

    def upper(self, states: Tensor, mask: Tensor | None, question: int = 0, first: int | None = None) -> Tensor:
        """
        The layers above k over joint rows [question; passage], and the encoder's closing norm.

        :param states: (rows, tokens, d).
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :param question: tokens at the beginning of each row whose states nobody asks for.
        :param first: layer to begin with: k, or k + 1 where `first_upper` has run; None for k.
        :returns: (rows, tokens - question, d).
        """
        first, last = self.config.k if first is None else first, len(self.family.layers)
        if not question:
            return self.family.close(self.family.run(states, mask, first, last))
        return self.family.close(self.family.run_passage(states, mask, first, last, question))

    def first_upper(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """
        Layer k + 1 of `upper` alone, which can go on from there.

        :param states: (rows, tokens, d).
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :returns: (rows, tokens, d); `first_look` judges a row by them.
        """
        return self.family.run(states, mask, self.config.k, self.config.k + 1)

    def span_logits(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, tokens, d) of `upper` -> start and end logits, each (rows, tokens)."""
        start, end = self.qa_outputs(states).unbind(-1)
        return start, end

    def first_look(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, tokens, d) of `first_upper` -> what the span head would say of them, as `span_logits`."""
        return self.span_logits(self.family.close(states))

    def joint(self, input_ids: Tensor, attention_mask: Tensor | None, **extra: Tensor) -> Tensor:
        """
        All layers over question and passage together, as the ordinary reader runs them.

        :param input_ids: (rows, tokens).
        :param attention_mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :param extra: token_type_ids, where the encoder has segments.
        :returns: (rows, tokens, d), the closing norm included.
        """
        states: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state
        return states

    def keeps_bits(self, prior_distance: Tensor, ids: Tensor, inside: Tensor, share: float) -> Tensor:
        """
        Which tokens keep their bits: in each row those of which the prior tells least, and no stop tokens.

        A code has as many bits for a state that the prior all but gives as for any other; there they are best saved.

        :param prior_distance: (n,) what the prior does not tell of each token, as `code` gives it.
        :param ids: (n,) their token ids.
        :param inside: (rows, tokens) bool: where in their rows the n tokens stand.
        :param share: of a row's tokens, from 0 to 1.
        :returns: (n,) bool.
        """
        stop = torch.isin(ids, torch.tensor(self.config.stop_tokens, device=ids.device, dtype=ids.dtype))
        if share == 1:
            return ~stop
        rows = prior_distance.new_zeros(inside.shape).masked_scatter(inside, prior_distance)
        return largest_share(rows, inside, share)[inside] & ~stop

    def merged(self, states: Tensor, inside: Tensor, mergeable: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """
        Merge a share of a passage's tokens into others like them, before they are coded (paper, section 3.2, offline).

        Bipartite matching as at run time (`merge.pairs`), but by calibrated states: the paper compares its codes,
        which stand for states, while a residual code means nothing without its token's prior.

        :param states: (n, d) after layer k.
        :param inside: (rows, tokens) bool: where in their rows the n tokens stand.
        :param mergeable: (n,) bool: tokens that may be merged.
        :param share: of a row's tokens, from 0 to 0.5.
        :returns: (n,) bool, which tokens are gone; and (n, d), the mean of each other token and of those that went
            into it.
        """
        coded = self.family.calibrate(states).float()
        rows = coded.new_zeros((*inside.shape, coded.shape[1])).masked_scatter(inside[..., None], coded)
        may = torch.zeros_like(inside).masked_scatter(inside, mergeable)
        gone, into = pairs(rows, may, inside, (inside.sum(1) * share).long())
        row, place = gone[:, ::2].nonzero(as_tuple=True)
        target = (row, 2 * into[row, place] + 1) if into.numel() else (row, place)
        total = rows.index_put(target, rows[:, ::2][row, place], accumulate=True)
        size = rows.new_ones(inside.shape).index_put(target, rows.new_ones(len(row)), accumulate=True)
        mean = self.family.restore((total / size[..., None])[inside].to(states.dtype))
        return gone[inside], torch.where((size[inside] > 1)[:, None], mean, states)

    def code(self, states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Bits of passage tokens.

        :param states: (n, d) after layer k.
        :param ids: (n,) their token ids.
        :returns: (n, m) of -1 and +1; (n,) how far each state is from its prior, as the next layer weighs it; and (n,)
            uint8 scales where the model stores them, else None.
        :raises ModelError: when the model has no codes.
        """
        binariser = self._binariser()
        coded = self.family.calibrate(states)
        prior = binariser.prior_of(F.embedding(ids, self.family.embeddings))
        bits, prior_distance = binariser.bits_of(coded, prior), self._distance(coded, prior)
        if self.config.scale != "stored" or not self.family.stores_scale:
            return bits, prior_distance, None
        return bits, prior_distance, (coded[:, -1] / SCALE_STEP + SCALE_ZERO).round().clamp(0, 255).to(torch.uint8)

    def _distance(self, coded: Tensor, prior: Tensor) -> Tensor:
        """(n,) distance of calibrated states from their priors, as the next layer weighs it."""
        return ((coded.detach() - prior.detach()) * self.family.importance()).float().norm(dim=-1)

    def decode(self, prior: Tensor, bits: Tensor, scales: Tensor | None) -> Tensor:
        """
        Approximate states from codes.

        :param prior: (n, d or d + 1) of `Binariser.prior_of`.
        :param bits: (n, m) of -1 and +1, 0 for a token without bits; or only the first of them.
        :param scales: (n,) uint8 stored scales, None where they are predicted.
        :returns: (n, d).
        """
        decoder = self._binariser().decoder
        coded = torch.addmm(prior, bits.to(decoder.dtype), decoder[: bits.shape[1]]) if bits.shape[1] else prior
        if scales is not None:
            exact = (scales.to(coded.dtype) - SCALE_ZERO) * SCALE_STEP
            coded = torch.cat([coded[:, :-1], exact[:, None]], 1)
        return self.family.restore(coded)

    def recode(
        self,
        states: Tensor,
        ids: Tensor,
        bits: int | None = None,
        *,
        coded_share: float | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Float states through their codes and back, differentiable (straight-through).

        :param states: (n, d) after layer k.
        :param ids: (n,) their token ids.
        :param bits: how many of the first bits are used; None for all.
        :param coded_share: share of a row's tokens that keep bits; None for the model's own.
        :param inside: (rows, tokens) bool: where in their rows the n tokens stand; None where they are one row.
        :returns: (n, d) decoded states, and the relative squared error of the coded vectors (a number).
        """
        coded = self.family.calibrate(states)
        decoded, error = self.approximate(coded, ids, bits, coded_share=coded_share, inside=inside)
        if self.config.scale == "stored" and self.family.stores_scale:
            decoded = torch.cat([decoded[:, :-1], coded[:, -1:]], 1)
        return self.family.restore(decoded), error

    def approximate(
        self,
        coded: Tensor,
        ids: Tensor,
        bits: int | None = None,
        *,
        coded_share: float | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Calibrated states through their codes and back, differentiable.

        :param coded: (n, d or d + 1) of `Family.calibrate`.
        :param ids: (n,) their token ids.
        :param bits: how many of the first bits are used; None for all.
        :param coded_share: see `recode`.
        :param inside: see `recode`.
        :returns: the decoded vectors, same shape, and their relative squared error as the next layer weighs it.
        """
        binariser = self._binariser()
        prior = binariser.prior_of(F.embedding(ids, self.family.embeddings))
        share = self.config.coded_share if coded_share is None else coded_share
        row = torch.ones((1, len(ids)), dtype=torch.bool, device=ids.device) if inside is None else inside
        kept = self.keeps_bits(self._distance(coded, prior), ids, row, share)
        code = binariser.bits_of(coded, prior)[:, :bits] * kept[:, None]
        decoded = prior + code @ binariser.decoder[:bits]
        weight = self.family.importance()
        lost, whole = ((x * weight).float().square().sum() for x in (decoded - coded, coded.detach()))
        return decoded, lost / whole

    def _binariser(self) -> Binariser:
        if self.binariser is None:
            msg = f"this reader has no codes (k = {self.config.k}, bits = None); train or fit one with bits >= 0 first"
            raise ModelError(msg)
        return self.binariser

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        question_ids: Tensor | None = None,
        question_mask: Tensor | None = None,
        passage_ids: Tensor | None = None,
        passage_mask: Tensor | None = None,
        pairs: Tensor | None = None,
        bits: int | None = None,
        coded_share: float | None = None,
        **_: Any,
    ) -> QuestionAnsweringModelOutput:
        """
        Start and end logits.

        :param input_ids: (rows, tokens) joint rows; reads as the ordinary reader, with `attention_mask` and
            `token_type_ids` of the same shape.
        :param question_ids: (q, tokens) question parts, with `question_mask`; each is encoded once.
        :param passage_ids: (p, tokens) passage parts, with `passage_mask`; each is encoded, and coded, once.
        :param pairs: (rows, 2) which question is read with which passage.
        :param bits: how many of a code's first bits are used; None for all.
        :param coded_share: share of a passage's tokens that keep bits; None for the model's own.
        :returns: logits (rows, tokens); split reading gives `SplitOutput`, its rows being [question; passage; padding].
        """
        if input_ids is not None:
            extra = {} if token_type_ids is None or not self._has_segments() else {"token_type_ids": token_type_ids}
            states = self.joint(input_ids, attention_mask, **extra)
            start, end = self.span_logits(states)
            return SplitOutput(start_logits=start, end_logits=end, states=states)
        if (
            question_ids is None
            or passage_ids is None
            or pairs is None
            or question_mask is None
            or passage_mask is None
        ):
            msg = "expected input_ids (joint), or question_ids, passage_ids, their masks and pairs (split reading)"
            raise ValueError(msg)
        questions = self.lower(question_ids, question_mask, passage=False)
        passage_length = passage_mask.sum(1)
        passage_ids, passage_mask = (one[:, : int(passage_length.max())] for one in (passage_ids, passage_mask))

        def lower(rows: Tensor) -> list[Tensor]:
            width = int(passage_length[rows].max())
            return [self.lower(passage_ids[rows, :width], passage_mask[rows, :width], passage=True)]

        [passages] = by_length(passage_length, lower)
        recovery = None
        if self.binariser is not None:
            inside = passage_mask.bool()
            decoded, recovery = self.recode(
                passages[inside].float(), passage_ids[inside], bits, coded_share=coded_share, inside=inside
            )
            passages = passages.masked_scatter(inside[..., None], decoded.to(passages.dtype))

        def upper(rows: Tensor) -> list[Tensor]:
            states, mask = join(questions, question_mask, passages, passage_mask, pairs[rows])
            ids, _ = join(question_ids[..., None], question_mask, passage_ids[..., None], passage_mask, pairs[rows])
            states = self.marked(states, mask, ids[..., 0], question_mask[pairs[rows, 0]].sum(1))
            first = self.first_upper(states, mask)
            last = self.upper(first, mask, first=self.config.k + 1)
            return [*self.span_logits(last), *self.first_look(first), last]

        joint_length = question_mask.sum(1)[pairs[:, 0]] + passage_length[pairs[:, 1]]
        start, end, first_start, first_end, states = by_length(joint_length, upper)
        return SplitOutput(
            start_logits=start, end_logits=end, states=states, recovery=recovery, first_look=(first_start, first_end)
        )

    def _has_segments(self) -> bool:
        return getattr(self.config.encoder, "type_vocab_size", 0) > 1

    @classmethod
    def from_reader(
        cls,
        folder: str | Path | ModelFiles,
        k: int = 0,
        bits: int | None = None,
        *,
        settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """
        Make a split reader of an ordinary one.

        :param folder: folder or hub id of a question-answering checkpoint of the BERT family, of a T5 encoder with a
            span head (`qa_outputs`), or of a bare encoder (its span head is then new and must be trained).
        :param k: number of lower layers.
        :param bits: bits a token; None for float states. New codes must be fitted (`fit_codes`) before they are used.
        :param settings: further fields of `BTRConfig`.
        :param kwargs: for `from_pretrained` (dtype, device_map, token, ...).
        :returns: the reader; weights that a checkpoint lacks are new.
        :raises ModelError: for a kind of model that cannot be split.
        """
        files = model_files(folder, **hub_arguments(kwargs))
        base = files.config
        if isinstance(base, BTRConfig):
            kept: dict[str, Any] = {"k": k, "bits": bits, "word_match": base.word_match and k > 0}
            code = (settings or {}).get("code", base.code)
            other_codes = (base.k, base.bits, base.code) != (k, bits, code)
            if other_codes:
                kept["stored_bits"] = None  # new codes have not learnt to be cut
            if base.k != k:
                kept["kept_share"] = 1.0  # nor has this layer learnt to look ahead, or none is left to drop windows
            changed = base.to_dict() | kept | (settings or {})
            changed.pop("model_type", None)
            config = BTRConfig(**changed)
            model = cls.from_pretrained(files, config=config, ignore_mismatched_sizes=True, **kwargs)
            if model.binariser is not None and other_codes:
                model._init_weights(model.binariser)  # codes of another split mean nothing here
            return model
        if getattr(base, "feed_forward_proj", None) == "gated-gelu":  # the same function, fused
            base = base.__class__(**{**base.to_dict(), **FUSED_GELU})
        config = BTRConfig(encoder=base, k=k, bits=bits, **(settings or {}))
        return cls.from_pretrained(files, config=config, key_mapping=cls._names_in(base.model_type), **kwargs)

    @staticmethod
    def _names_in(model_type: str) -> dict[str, str]:
        """How an ordinary checkpoint's weights are called here."""
        if model_type == "t5":
            return {r"^(shared\.|encoder\.(?:block|final_layer_norm|embed_tokens)\.)": r"encoder.\1"}
        return {r"^(bert|roberta|electra|distilbert|mpnet)\.": "encoder."}


@contextmanager
def _reported_of(name: str) -> Iterator[None]:
    """Meanwhile transformers' reports of missing weights say of which model: it is given the weights alone."""

    def named(record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str):
            record.msg = record.msg.replace("from: None", f"from: {name}")
        return True

    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(named)
    try:
        yield
    finally:
        log.removeFilter(named)


def hub_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Those of the keyword arguments of `from_pretrained` that say where a file is found."""
    return {name: value for name, value in given.items() if name in HUB_ARGUMENTS}


def join(
    questions: Tensor, question_mask: Tensor, passages: Tensor, passage_mask: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Rows [question; passage; padding], without a gap: places in a row are contiguous, as relative positions need.

    :param questions: (q, tokens, d), padded on the right, with its mask (q, tokens).
    :param passages: (p, tokens, d), padded on the right, with its mask (p, tokens).
    :param pairs: (rows, 2) question and passage of each row.
    :returns: (rows, longest, d) states and (rows, longest) mask.

    >>> q, p = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[2.0], [3.0]]])
    >>> states, mask = join(q, torch.tensor([[1, 0]]), p, torch.tensor([[1, 1]]), torch.tensor([[0, 0]]))
    >>> states[..., 0].tolist(), mask.tolist()
    ([[1.0, 2.0, 3.0]], [[1, 1, 1]])
    """
    question_length, passage_length = question_mask.sum(1)[pairs[:, 0]], passage_mask.sum(1)[pairs[:, 1]]
    width = int((question_length + passage_length).max())
    place = torch.arange(width, device=questions.device)[None]
    behind = place - question_length[:, None]
    source = torch.where(behind < 0, place, questions.shape[1] + behind.clamp(min=0))
    mask = (behind < passage_length[:, None]).long()
    both = torch.cat([questions[pairs[:, 0]], passages[pairs[:, 1]]], 1)
    source = source.clamp(max=both.shape[1] - 1)
    rows = torch.arange(len(pairs), device=questions.device)[:, None]
    return both[rows, source] * mask[..., None].to(both.dtype), mask


AutoModelForQuestionAnswering.register(BTRConfig, BTRForQuestionAnswering)
