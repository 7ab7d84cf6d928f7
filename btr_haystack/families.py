# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Encoders that can be split: how each family embeds, runs some of its layers, and calibrates a state.

A family is a thin view on a transformers encoder. `calibrate` turns the state after layer k into the vector that is
coded, `restore` turns it back (paper, section 3.1: binarisation between the two halves of a normalisation).
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from btr_haystack._transformers import (
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    T5EncoderModel,
    create_bidirectional_mask,
)
from btr_haystack.errors import ModelError

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
BIAS_STEP = 128  # tokens by which a kept position bias grows
_BIASES: WeakKeyDictionary[nn.Module, tuple[Tensor, Tensor]] = WeakKeyDictionary()  # the weights, and what they gave
SUPPORTED = (*BERT_LIKE, "distilbert", "mpnet", "t5")


def new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """
    An encoder of this configuration with new weights.

    :param config: of one of the families in `SUPPORTED`.
    :raises ModelError: for another kind of model.
    """
    if config.model_type not in SUPPORTED:
        msg = f"cannot split a model of type {config.model_type!r}; expected one of: {', '.join(SUPPORTED)}"
        raise ModelError(msg)
    if config.model_type == "t5":
        return T5EncoderModel(config)
    if config.model_type in ("distilbert", "electra"):
        return AutoModel.from_config(config)
    return AutoModel.from_config(config, add_pooling_layer=False)


class Family:
    """
    What the split reader needs to know of an encoder; this class is the BERT family, the others differ in parts.

    :param encoder: a transformers encoder.
    :param k: where it is split.
    """

    stores_scale = False
    null_first = True  # the null span is the first token ([CLS])

    def __init__(self, encoder: PreTrainedModel, k: int) -> None:
        self.encoder: Any = encoder  # the families' own names lie below it
        self.k = k

    @property
    def layers(self) -> Any:
        """The encoder's layers, lowest first."""
        return self.encoder.encoder.layer

    @property
    def embeddings(self) -> Tensor:
        """(vocabulary, e) input embeddings, the features of the token prior."""
        weight: Tensor = self.encoder.get_input_embeddings().weight
        return weight

    @property
    def positions(self) -> int | None:
        """Most tokens of a joint row; None where positions are relative and rows as long as one likes."""
        longest: int | None = getattr(self.encoder.config, "max_position_embeddings", None)
        return longest

    def embed(self, ids: Tensor, *, start: int, segment: int) -> Tensor:
        """
        States below the first layer.

        :param ids: (rows, tokens) token ids.
        :param start: position of the first token.
        :param segment: 0 for the question, 1 for the passage.
        :returns: (rows, tokens, d).
        """
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None].expand_as(ids)
        states: Tensor = self._embed(ids, positions, segment)
        return states

    def _embed(self, ids: Tensor, positions: Tensor, segment: int) -> Tensor:
        segments = torch.full_like(ids, segment if self.encoder.config.type_vocab_size > 1 else 0)
        states = self.encoder.embeddings(input_ids=ids, position_ids=positions, token_type_ids=segments)
        if hasattr(self.encoder, "embeddings_project"):
            states = self.encoder.embeddings_project(states)
        return states

    def run(self, states: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        """
        Layers first, first + 1, ..., last - 1.

        :param states: (rows, tokens, d).
        :param mask: (rows, tokens) 1 where there is a token; None where there is one everywhere.
        :returns: (rows, tokens, d).
        """
        attention = self._attention_mask(states, mask)
        for layer in self.layers[first:last]:
            states = self._layer(layer, states, attention)
        return states

    def run_passage(self, states: Tensor, mask: Tensor | None, first: int, last: int, question: int) -> Tensor:
        """
        The passage's states of `run`: what the last layer would make of the question is nobody's to read.

        :param states: (rows, tokens, d) joint rows [question; passage].
        :param mask: as in `run`.
        :param question: tokens of the question.
        :returns: (rows, tokens - question, d).
        """
        return self.run(states, mask, first, last)[:, question:]

    def close(self, states: Tensor) -> Tensor:
        """
        What stands between the last layer and a head: nothing, but pre-norm encoders have a norm.

        :param states: (rows, tokens, d) after a layer.
        :returns: same shape.
        """
        return states

    def _attention_mask(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        made: Tensor | None = create_bidirectional_mask(self.encoder.config, states, mask)  # names differ by release
        return made

    def _layer(self, layer: nn.Module, states: Tensor, attention: Tensor | None) -> Tensor:
        out = layer(states, attention)
        return out[0] if isinstance(out, tuple) else out

    def attention_projections(self) -> tuple[nn.Module, nn.Module]:
        """The query and key projections of the last layer."""
        attention = self.layers[-1].attention.self
        return attention.query, attention.key

    def _norm(self) -> nn.LayerNorm:
        norm: nn.LayerNorm = self.layers[self.k - 1].output.LayerNorm
        return norm

    def importance(self) -> Tensor:
        """(d,) weight of each calibrated coordinate in what the next layer sees."""
        return self._norm().weight.detach().abs()

    def calibrate(self, states: Tensor) -> Tensor:
        """
        Undo the affine part of the norm that closed layer k: x = (h - beta) / gamma.

        :param states: (n, d) after layer k.
        :returns: (n, d); pre-norm encoders return (n, d + 1), see `T5Family`.
        """
        norm = self._norm()
        gamma = torch.where(norm.weight.abs() < 1e-6, torch.full_like(norm.weight, 1e-6), norm.weight)  # noqa: PLR2004
        return (states - norm.bias) / gamma

    def restore(self, coded: Tensor) -> Tensor:
        """
        The inverse of `calibrate`, after standardising again: a decoded vector gets the moments every state has.

        :param coded: (n, d), pre-norm encoders (n, d + 1).
        :returns: (n, d) states.
        """
        norm = self._norm()
        return F.layer_norm(coded, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class RobertaFamily(Family):
    """RoBERTa and its kin: positions begin behind the padding index."""

    @property
    def positions(self) -> int | None:
        """Most tokens of a joint row, see `Family.positions`."""
        longest: int = self.encoder.config.max_position_embeddings - self.encoder.embeddings.padding_idx - 1
        return longest

    def _embed(self, ids: Tensor, positions: Tensor, segment: int) -> Tensor:
        return super()._embed(ids, positions + self.encoder.embeddings.padding_idx + 1, segment)


class DistilBertFamily(Family):
    """DistilBERT: no segments, its own names."""

    @property
    def layers(self) -> Any:
        """The encoder's layers, lowest first."""
        return self.encoder.transformer.layer

    def _embed(self, ids: Tensor, positions: Tensor, segment: int) -> Tensor:  # noqa: ARG002
        states: Tensor = self.encoder.embeddings(input_ids=ids, position_ids=positions)
        return states

    def attention_projections(self) -> tuple[nn.Module, nn.Module]:
        """The query and key projections of the last layer."""
        attention = self.layers[-1].attention
        return attention.q_lin, attention.k_lin

    def _norm(self) -> nn.LayerNorm:
        norm: nn.LayerNorm = self.layers[self.k - 1].output_layer_norm
        return norm


class MPNetFamily(RobertaFamily):
    """MPNet: no segments, and a position bias shared by all layers."""

    def attention_projections(self) -> tuple[nn.Module, nn.Module]:
        """The query and key projections of the last layer."""
        attention = self.layers[-1].attention.attn
        return attention.q, attention.k

    def _embed(self, ids: Tensor, positions: Tensor, segment: int) -> Tensor:  # noqa: ARG002
        states: Tensor = self.encoder.embeddings(
            input_ids=ids, position_ids=positions + self.encoder.embeddings.padding_idx + 1
        )
        return states

    def run(self, states: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        """Layers first to last - 1, see `Family.run`; the bias is that of contiguous places in the row."""
        bias = self.encoder.encoder.compute_position_bias(states)
        extended = 0.0 if mask is None else (1.0 - mask[:, None, None].to(states.dtype)) * torch.finfo(states.dtype).min
        for layer in self.layers[first:last]:
            states = layer(states, extended, bias)[0]
        return states


class T5Family(Family):
    """
    T5 encoders: pre-norm, relative positions.

    The calibrated vector has d + 1 numbers: the state at unit root mean square, and the logarithm of what was divided
    away. The scale matters: later layers add to the state.
    """

    stores_scale = True
    null_first = False  # the null span is the separator behind the question

    @property
    def layers(self) -> Any:
        """The encoder's layers, lowest first."""
        return self.encoder.encoder.block

    def _embed(self, ids: Tensor, positions: Tensor, segment: int) -> Tensor:  # noqa: ARG002
        states: Tensor = self.encoder.shared(ids)
        return states

    def run(self, states: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        """Layers first to last - 1, see `Family.run`."""
        return self._run(states, self._masked_bias(states, mask), first, last)

    def run_passage(self, states: Tensor, mask: Tensor | None, first: int, last: int, question: int) -> Tensor:
        """See `Family.run_passage`; the last layer's queries and feed-forward are computed for the passage alone."""
        bias = self._masked_bias(states, mask)
        states = self._run(states, bias, first, last - 1)
        attention, feed_forward = self.layers[last - 1].layer
        normed = attention.layer_norm(states)
        seen = attention.SelfAttention(
            normed[:, question:], key_value_states=normed, position_bias=bias[:, :, question:]
        )[0]
        return _finite(feed_forward(_finite(states[:, question:] + seen)))

    def run_merged(self, states: Tensor, places: Tensor, sizes: Tensor, first: int, last: int) -> Tensor:
        """
        Layers first to last - 1 over tokens some of which stand for several (ToMe's proportional attention).

        :param states: (rows, tokens, d).
        :param places: (rows, tokens) int64: where each token stood before any were merged.
        :param sizes: (rows, tokens) float: how many tokens each one stands for; 0 for padding.
        :returns: (rows, tokens, d).
        """
        whole = self._bias(int(places.max()) + 1, states.device)[0]
        bias = whole[:, places[:, :, None], places[:, None, :]].transpose(0, 1)
        return self._run(states, bias + log_sizes(sizes, bias.dtype), first, last)

    def _bias(self, length: int, device: torch.device) -> Tensor:
        """(1, heads, length, length) position bias; on a CPU, part of a longer one that is kept."""
        attention = self.layers[0].layer[0].SelfAttention
        weight = attention.relative_attention_bias.weight
        if device.type != "cpu" or (weight.requires_grad and torch.is_grad_enabled()):
            bias: Tensor = attention.compute_bias(length, length, device=device)
            return bias
        made_of, bias = _BIASES.get(attention, (None, weight))
        if (
            made_of is None
            or made_of.dtype != weight.dtype
            or not torch.equal(made_of, weight)
            or len(bias[0, 0]) < length
        ):
            with torch.inference_mode(False), torch.no_grad():
                whole = -(-length // BIAS_STEP) * BIAS_STEP
                bias = attention.compute_bias(whole, whole, device=device)
                _BIASES[attention] = (weight.detach().clone(), bias)
        return bias[:, :, :length, :length]

    def _masked_bias(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """(1 or rows, heads, tokens, tokens) what is added to attention scores."""
        bias = self._bias(states.shape[1], states.device)
        return bias if mask is None else bias.masked_fill(mask[:, None, None] == 0, torch.finfo(bias.dtype).min)

    def _run(self, states: Tensor, bias: Tensor, first: int, last: int) -> Tensor:
        for layer in self.layers[first:last]:
            states = layer(states, None, bias)[0]
        return states

    def close(self, states: Tensor) -> Tensor:
        """The encoder's final norm, see `Family.close`."""
        closed: Tensor = self.encoder.encoder.final_layer_norm(states)
        return closed

    def attention_projections(self) -> tuple[nn.Module, nn.Module]:
        """The query and key projections of the last layer."""
        attention = self.layers[-1].layer[0].SelfAttention
        return attention.q, attention.k

    def importance(self) -> Tensor:
        """(d + 1,) weight of the next layer's norm; the scale's own weight is 0, it has no bit of its own."""
        return F.pad(self.layers[self.k].layer[0].layer_norm.weight.detach().abs(), (0, 1))

    def calibrate(self, states: Tensor) -> Tensor:
        """(n, d) states -> (n, d + 1): h / rms(h) and log rms(h)."""
        rms = (states.float().square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return torch.cat([states / rms, rms.log()], -1)

    def restore(self, coded: Tensor) -> Tensor:
        """(n, d + 1) -> (n, d): brought to unit root mean square again, then multiplied by the scale."""
        x, scale = coded[..., :-1], coded[..., -1:]
        return x * (torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-12) * scale.exp())


def _finite(states: Tensor) -> Tensor:
    """float16 states of T5 can run over, which transformers' own block catches in this way."""
    if states.dtype != torch.float16:
        return states
    most = torch.finfo(states.dtype).max - 1000
    return states.clamp(-most, most)


def log_sizes(sizes: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, tokens) sizes of merged tokens -> (rows, 1, 1, tokens) to add to attention scores; nothing sees size 0."""
    return torch.where(sizes > 0, sizes.clamp_min(1).log(), torch.finfo(dtype).min).to(dtype)[:, None, None]


def family_of(encoder: PreTrainedModel, k: int) -> Family:
    """
    The family that an encoder belongs to.

    :param encoder: of `new_encoder`.
    :param k: where it is split.
    :raises ModelError: for a kind of model that is not supported.
    """
    kinds: dict[str, type[Family]] = {
        "t5": T5Family,
        "distilbert": DistilBertFamily,
        "mpnet": MPNetFamily,
        "roberta": RobertaFamily,
        "xlm-roberta": RobertaFamily,
        "camembert": RobertaFamily,
    }
    kind = encoder.config.model_type
    if kind not in SUPPORTED:
        msg = f"cannot split a model of type {kind!r}; expected one of: {', '.join(SUPPORTED)}"
        raise ModelError(msg)
    return kinds.get(kind, Family)(encoder, k)
