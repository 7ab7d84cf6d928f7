# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The settings of a split reader, kept in config.json beside its weights."""

import copy
from importlib import import_module
from typing import Any

from btr_haystack._transformers import AutoConfig, PreTrainedConfig

CODES = ("residual", "sign")
SCALES = ("predicted", "stored")


class BTRConfig(PreTrainedConfig):
    """
    Configuration of a split reader: the base encoder's own configuration, where it is split, and how states are coded.

    :param encoder: the base encoder's configuration (or its dictionary, with "model_type").
    :param k: number of lower layers; they see a passage alone. 0 is the ordinary joint reader.
    :param bits: bits a token (m); None keeps float states (decomposed, not binarised), 0 only the token prior.
    :param code: "residual" codes what the token id does not tell (default), "sign" is the paper's plain sign code.
    :param scale: for pre-norm encoders: "predicted" from token and bits, or "stored" in one byte a token.
    :param stop_tokens: token ids that keep no bits; the prior stands in for them.
    :param coded_share: share of a window's tokens that keep bits, those of which the prior tells least; a store may
        have another one.
    :param stored_bits: how many of a code's first bits a store keeps unless told otherwise; None for all.
    :param kept_share: share of the windows that a reader reads to the end unless told otherwise: those that look best
        after the first upper layer.
    :param max_query_length: longest question part, special tokens included; BERT passages start at this position.
    :param word_match: tokens that question and passage share are marked before the upper layers (`WordMatch`).
    :raises ValueError: where a value is outside its range.
    """

    model_type = "btr"
    sub_configs = {"encoder": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        encoder: PreTrainedConfig | dict[str, Any] | None = None,
        k: int = 0,
        bits: int | None = None,
        code: str = "residual",
        scale: str = "predicted",
        stop_tokens: list[int] | None = None,
        coded_share: float = 1.0,
        stored_bits: int | None = None,
        kept_share: float = 1.0,
        max_query_length: int = 64,
        word_match: bool = False,
        **kwargs: Any,
    ) -> None:
        # transformers looks a model up by its configuration: whoever has one finds the model registered. It cannot be
        # imported with the package, see `btr_haystack._lazy`.
        import_module("btr_haystack.model")
        if isinstance(encoder, dict):
            settings = dict(encoder)
            encoder = AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.encoder: Any = copy.deepcopy(encoder)
        if isinstance(self.encoder, PreTrainedConfig):
            self.encoder._name_or_path = ""  # else a saved configuration tells where its base once lay
        self.k = k
        self.bits = bits
        self.code = code
        self.scale = scale
        self.stop_tokens = sorted(stop_tokens or [])
        self.coded_share = coded_share
        self.stored_bits = stored_bits
        self.kept_share = kept_share
        self.max_query_length = max_query_length
        self.word_match = word_match
        super().__init__(**kwargs)
        self._check()

    @property
    def kept_bits(self) -> int:
        """Bits a token that a store keeps unless told otherwise; 0 where the model has no codes."""
        return (self.bits if self.stored_bits is None else self.stored_bits) or 0

    def _check(self) -> None:
        if self.code not in CODES:
            msg = f"code is {self.code!r}; expected one of {', '.join(CODES)}"
            raise ValueError(msg)
        if self.scale not in SCALES:
            msg = f"scale is {self.scale!r}; expected one of {', '.join(SCALES)}"
            raise ValueError(msg)
        if self.bits is not None and self.bits < 0:
            msg = f"bits is {self.bits}; expected None (float states) or a number of bits a token, 0 or more"
            raise ValueError(msg)
        if self.stored_bits is not None and not 0 <= self.stored_bits <= (self.bits or 0):
            msg = (
                f"stored_bits is {self.stored_bits}; expected None (all), or 0 to {self.bits or 0}, the bits of a code"
            )
            raise ValueError(msg)
        if not 0 <= self.coded_share <= 1:
            msg = f"coded_share is {self.coded_share}; expected a share of the tokens from 0 to 1"
            raise ValueError(msg)
        if not 0 < self.kept_share <= 1:
            msg = f"kept_share is {self.kept_share}; expected a share of the windows above 0 and up to 1"
            raise ValueError(msg)
        if self.max_query_length < 4:  # noqa: PLR2004
            msg = f"max_query_length is {self.max_query_length}; expected 4 or more, special tokens included"
            raise ValueError(msg)
        if self.encoder is None:
            return
        layers = self.encoder.num_hidden_layers
        if not 0 <= self.k < layers:
            msg = f"k is {self.k}; this encoder has {layers} layers, so k must be from 0 (joint) to {layers - 1}"
            raise ValueError(msg)
        if self.kept_share < 1 and self.k in (0, layers - 1):
            msg = (
                f"kept_share is {self.kept_share} but k is {self.k} of {layers} layers: windows are dropped between "
                "the first upper layer and the next; expected 1"
            )
            raise ValueError(msg)
        if self.word_match and self.k == 0:
            msg = "word_match is on but k is 0: a joint reader has every layer to find matches with; turn it off"
            raise ValueError(msg)
        if self.bits is not None and self.k == 0:
            msg = f"bits is {self.bits} but k is 0: with no lower layers there is nothing to code; choose k >= 1"
            raise ValueError(msg)
        if self.code == "sign" and self.bits not in (None, self.encoder.hidden_size):
            msg = f"the sign code has one bit a dimension: bits must be {self.encoder.hidden_size}, not {self.bits}"
            raise ValueError(msg)


BTRConfig.__module__ = "btr_haystack.config"  # where pickles and people find it
