# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The split reader at work: texts into passages of codes, a question and passages into spans."""

import copy
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from btr_haystack import binarise
from btr_haystack.config import BTRConfig
from btr_haystack.digest import digest_of_files, digest_of_weights
from btr_haystack.errors import LimitError, ModelError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.limits import SHOWN, Limits
from btr_haystack.merge import MOST_MERGED
from btr_haystack.model import BTRForQuestionAnswering, hub_arguments
from btr_haystack.model_files import model_files
from btr_haystack.padding import ROUNDING, padded
from btr_haystack.passage import Layout, Passage, Tokens
from btr_haystack.quantise import quantised
from btr_haystack.rows import (
    Codes,
    Rows,
    added_to_rows,
    codes_of,
    concatenate,
    in_batches,
    in_groups,
    joint_rows,
    rows_of,
)
from btr_haystack.spans import best_spans
from btr_haystack.tokens import TokenCache
from btr_haystack.windows import frame_of, passage_room, question_part, window_count, window_starts

BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}  # on a CPU, more fall out of its cache
DECODED_TOKENS = {"cpu": 32_768, "cuda": 524_288}  # whose states are decoded at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """
    Candidate answers to one question, s of them: passage by passage, window by window, best first in each window.

    :param passage: int64 (s,) number of the passage.
    :param start: int64 (s,) first token, in the document's own numbering.
    :param end: int64 (s,) last token.
    :param score: float32 (s,) sum of start and end logit, and of what was added for the passage.
    """

    passage: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray


_Batch = tuple[np.ndarray, Tensor, Tensor | None]  # numbers of the rows, their states, their mask


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """Token ids (1, tokens) of a question part, and its states (1, tokens, d) after layer k."""

    ids: Tensor
    states: Tensor


class SplitReader:
    """
    A model, its tokenizer, and how documents are cut into windows.

    :param model: the reader; k = 0 reads jointly and keeps nothing.
    :param tokenizer: a fast tokenizer.
    :param max_seq_length: tokens of a joint row, question and special tokens included.
    :param stride: tokens that neighbouring windows of a long document share.
    :param bits: how many of a code's first bits are kept, of a model trained for that; None for the model's own.
    :param coded_share: share of a window's tokens that keep bits, those of which the prior tells least; None for the
        model's own.
    :param merged_share: share of a window's tokens that are merged into others like them and lose their places, from 0
        to 0.5; spans can then not be read.
    :param digest: of the weights that decide the codes; computed from the model where it is not given.
    :param limits: of the windows of a document; None for none.
    :raises ValueError: where a window would hold no token, or not more than the stride; where the model has fewer bits.
    :raises ModelError: where the tokenizer is slow or the model is decomposed but has no codes.
    """

    model_class: ClassVar[type[BTRForQuestionAnswering]] = BTRForQuestionAnswering

    def __init__(
        self,
        model: BTRForQuestionAnswering,
        tokenizer: Any,
        *,
        max_seq_length: int = 384,
        stride: int = 128,
        bits: int | None = None,
        coded_share: float | None = None,
        merged_share: float = 0.0,
        digest: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.token_cache = TokenCache(tokenizer)
        self.max_seq_length = max_seq_length
        self.stride = stride
        self.bits = model.config.kept_bits if bits is None else bits
        self.coded_share = model.config.coded_share if coded_share is None else coded_share
        self.merged_share = merged_share
        self.limits = limits
        self.frame = frame_of(tokenizer)
        self._digest = digest
        if model.config.k > 0 and model.binariser is None:
            msg = (
                f"the reader is decomposed (k = {model.config.k}) but has no codes (bits = None); "
                "train stage 'binarised', or fit codes with fit_codes"
            )
            raise ModelError(msg)
        if model.binariser is not None and not model.binariser.fitted:
            msg = (
                "the reader's codes are new: fit them with fit_codes(model, tokenizer, texts), "
                "or train stage 'binarised'"
            )
            raise ModelError(msg)
        self._check()

    def _check(self) -> None:
        """Raises where the settings do not fit each other or the model."""
        if not 0 <= self.bits <= (self.model.config.bits or 0):
            msg = f"bits is {self.bits}; expected 0 to {self.model.config.bits or 0}, the bits of this model's codes"
            raise ValueError(msg)
        if not 0 <= self.coded_share <= 1:
            msg = f"coded_share is {self.coded_share}; expected a share of the tokens from 0 to 1"
            raise ValueError(msg)
        if not 0 <= self.merged_share <= MOST_MERGED:
            msg = f"merged_share is {self.merged_share}; expected a share of the tokens from 0 to {MOST_MERGED}"
            raise ValueError(msg)
        if not self.joint:
            self._window()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        max_seq_length: int = 384,
        stride: int = 128,
        bits: int | None = None,
        coded_share: float | None = None,
        merged_share: float = 0.0,
        token: str | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Self:
        """
        Load a reader: a split one, or any question-answering checkpoint of a known family, which is then read jointly.

        :param folder: folder or hub id.
        :param max_seq_length: tokens of a joint row.
        :param stride: tokens that neighbouring windows share.
        :param bits: how many of a code's first bits are kept; None for the model's own.
        :param coded_share: share of a window's tokens that keep bits; None for the model's own.
        :param merged_share: share of a window's tokens that are merged into others.
        :param token: for private models of the hub.
        :param limits: of the windows of a document; None for none.
        :param kwargs: for `from_pretrained` of the model: dtype, device_map, revision, ...
        :raises ModelError: for a kind of model that cannot be split, or a damaged tokenizer.
        """
        files = model_files(folder, token=token, **hub_arguments(kwargs))
        kwargs.setdefault("dtype", torch.float32)
        kind = cls.model_class
        load = kind.from_pretrained if isinstance(files.config, BTRConfig) else kind.from_reader
        model = load(files, **kwargs)
        tokenizer = files.tokenizer()
        _check_vocabulary(model, tokenizer, files.name)
        digest = None if model.config.k == 0 else digest_of_files(files, model.config, tokenizer)
        return cls(
            model, tokenizer, max_seq_length=max_seq_length, stride=stride, bits=bits, coded_share=coded_share,
            merged_share=merged_share, digest=digest, limits=limits,
        )  # fmt: skip

    def changed(self, **settings: Any) -> Self:
        """
        The same model, and its tables, with other windows or codes.

        :param settings: `max_seq_length`, `stride`, `bits`, `coded_share`, `merged_share` or `limits`.
        :returns: another reader, or this one where nothing differs.
        :raises ValueError: see the class.
        """
        if all(getattr(self, name) == value for name, value in settings.items()):
            return self
        other = copy.copy(self)
        other.__dict__.pop("fingerprint", None)
        for name, value in settings.items():
            setattr(other, name, value)
        other._check()
        return other

    def in_int8(self) -> Self:
        """
        A reader of the same passages whose upper layers compute in 8 bits on a CPU, see `quantised`.

        :raises ModelError: where that cannot be.
        """
        other = copy.copy(self)
        if not self.joint:
            other.__dict__["fingerprint"] = self.fingerprint  # of the weights before they are rounded
        other.model = quantised(self.model)
        return other

    @property
    def question_room(self) -> int:
        """
        Most tokens of a question that is read with passages from codes, its special tokens included.

        Where positions are absolute, the model's max_query_length, for passages begin behind it. Where they are
        relative, half of max_seq_length; a row with a question longer than max_query_length can then be so much longer.
        """
        longest = self.model.config.max_query_length
        return longest if self.model.family.positions is not None else max(longest, self.max_seq_length // 2)

    @property
    def joint(self) -> bool:
        """Whether question and passage are read together from the first layer (k = 0), so that nothing can be kept."""
        return self.model.config.k == 0

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What a store of this reader's passages is marked with; another model, windows or codes: another one."""
        config = self.model.config
        if self._digest is None:
            self._digest = digest_of_weights(self.model.state_dict(), config, self.tokenizer)
        windows = {"max_seq_length": self.max_seq_length, "stride": self.stride}
        description = {
            "model": str(config.name_or_path or "unnamed").rstrip("/").rsplit("/", 1)[-1],
            "encoder": config.encoder.model_type,
            "layers": config.encoder.num_hidden_layers,
            "k": config.k,
            "bits": -1 if config.bits is None else self.bits,
            "code": config.code,
            "scale": config.scale,
            "stop_tokens": len(config.stop_tokens),
            "coded_share": self.coded_share,
            "width": config.encoder.hidden_size,
            **({"merged_share": self.merged_share} if self.merged_share else {}),
            **windows,
        }
        cut = ("" if self.bits == config.bits else f" {self.bits}") + f" {float(self.coded_share)}"
        cut += f" merged {float(self.merged_share)}" if self.merged_share else ""
        whole = hashlib.blake2b(f"{self._digest} {sorted(windows.items())}{cut}".encode(), digest_size=16).hexdigest()
        return Fingerprint(digest=whole, description=description)

    @property
    def layout(self) -> Layout:
        """What the passages that this reader encodes are like; it reads no others."""
        return Layout(
            width=-(-self.bits // 8),
            scales=self.model.config.scale == "stored" and self.model.family.stores_scale,
            coded_share=self.coded_share,
            merged_share=self.merged_share,
        )

    def encode(self, texts: Sequence[str], *, max_rows: int | None = None) -> list[Passage]:
        """
        Run the lower layers on each text and keep its bits.

        :param texts: any strings; an empty one gives a passage without tokens. Memory grows with their tokens.
        :param max_rows: most windows run at a time; by default as many as fit a token budget.
        :returns: one passage a text.
        :raises ModelError: when the reader is joint (k = 0).
        """
        if self.joint:
            msg = "a joint reader (k = 0) keeps nothing of a passage; choose a model with k >= 1 and codes"
            raise ModelError(msg)
        return self.code(self.tokens(texts), max_rows=max_rows)

    def tokens(self, texts: Sequence[str], *, remember: bool = False) -> list[Tokens]:
        """
        Cut texts into tokens and windows, which is all that a text alone gives.

        :param texts: any strings; an empty one has no token.
        :param remember: keep them for the next time, as of documents that questions are asked about.
        :returns: of each text.
        :raises LimitError: at the first text that is beyond the limits.
        """
        made = []
        for one in self.tokens_or_refusals(texts, remember=remember):
            if isinstance(one, LimitError):
                raise one
            made.append(one)
        return made

    def tokens_or_refusals(self, texts: Sequence[str], *, remember: bool = False) -> list[Tokens | LimitError]:
        """
        Cut texts into tokens and windows, those that are not beyond the limits, see `tokens`.

        :param texts: any strings.
        :param remember: keep the tokens for the next time.
        :returns: of each text, or what is wrong with it.
        """
        window, limits = self._window(), self.limits
        short = [text if limits is None or len(text) <= limits.characters else "" for text in texts]
        found = zip(texts, self.token_cache.ids(short, remember=remember), strict=True)
        return [self._tokens_or_refusal(text, ids, window) for text, ids in found]

    def _tokens_or_refusal(self, text: str, ids: list[int], window: int) -> Tokens | LimitError:
        try:
            if self.limits is not None:
                self.limits.check("characters", len(text), f"the number of characters of the text {text[:SHOWN]!r}")
            self._check_cut(text, len(ids), window, self.max_seq_length)
        except LimitError as refusal:
            return refusal
        closing = list(self.frame.closing)
        starts = window_starts(len(ids), window, self.stride)
        parts = [ids[a : a + window] + closing for a in starts]
        windows = np.array([(a, len(part)) for a, part in zip(starts, parts, strict=True)], dtype=np.int32)
        return Tokens(np.array(list(chain(*parts)), dtype=np.int32), windows.reshape(-1, 2))

    def _check_cut(self, text: str, tokens: int, window: int, row: int) -> None:
        """Raises where a document of so many tokens is beyond the limits, before its windows are made."""
        if self.limits is not None and tokens > window:
            windows = window_count(tokens, window, min(self.stride, window - 1))
            self.limits.check_cut(tokens, windows, row, text)

    def code(self, documents: Sequence[Tokens], *, max_rows: int | None = None) -> list[Passage]:
        """
        Run the lower layers on each document and keep its bits, see `encode`.

        :param documents: of `tokens`.
        :param max_rows: most windows run at a time.
        :returns: one passage a document.
        """
        ends = [np.cumsum(document.windows[:, 1]) for document in documents]
        parts = [
            document.ids[a:b].tolist()
            for document, end in zip(documents, ends, strict=True)
            for a, b in zip(end - document.windows[:, 1], end, strict=True)
        ]
        codes, kept, scales, gone = self._code(parts, max_rows)
        width = self.layout.width
        passages, row = [], 0
        for document in documents:
            rows = slice(row, row + len(document.windows))
            row += len(document.windows)
            passages.append(
                Passage(
                    ids=document.ids,
                    windows=document.windows,
                    kept=concatenate(kept[rows], (0,), np.bool_),
                    codes=concatenate(codes[rows], (0, width)),
                    scales=None if scales is None else concatenate(scales[rows], (0,)),
                    gone=None if gone is None else _where_any(concatenate(gone[rows], (0,), np.bool_)),
                )
            )
        return passages

    @torch.inference_mode()
    def _code(
        self, parts: list[list[int]], max_rows: int | None
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray] | None, list[np.ndarray] | None]:
        """Of each part: packed codes, which tokens they are of; scales and merged tokens, where there are any."""
        model, pad = self.model, self.tokenizer.pad_token_id or 0
        codes: list[np.ndarray] = [np.zeros((0, 0), np.uint8)] * len(parts)
        kept: list[np.ndarray] = [np.zeros(0, np.bool_)] * len(parts)
        scales: list[np.ndarray] = [np.zeros(0, np.uint8)] * len(parts)
        gone: list[np.ndarray] = [np.zeros(0, np.bool_)] * len(parts)
        for batch in in_batches(
            np.array([len(part) for part in parts], dtype=np.int64), self._token_budget(), max_rows
        ):
            ids, mask = (t.to(model.device) for t in padded([parts[i] for i in batch], pad))
            states = model.lower(ids, None if bool(mask.all()) else mask, passage=True)
            inside = mask.bool()
            bits, prior_distance, scale = model.code(states[inside], ids[inside])
            keeps = model.keeps_bits(prior_distance, ids[inside], inside, self.coded_share)
            lengths = mask.sum(1).tolist()
            if self.merged_share:
                text = self._inside(mask.sum(1).cpu().numpy(), mask)[inside]
                merged, mean = model.merged(states[inside], inside, keeps & text, self.merged_share)
                bits, _, scale = model.code(mean, ids[inside])
                keeps &= ~merged
                for i, value in zip(batch, merged.cpu().split(lengths), strict=True):
                    gone[i] = value.numpy()
            packed, keeps = binarise.pack_bits(bits[:, : self.bits]).cpu(), keeps.cpu()
            for i, code, keep in zip(batch, packed.split(lengths), keeps.split(lengths), strict=True):
                codes[i], kept[i] = code[keep].numpy(), keep.numpy()
            if scale is not None:
                for i, value in zip(batch, scale.cpu().split(lengths), strict=True):
                    scales[i] = value.numpy()
        return codes, kept, scales if self.layout.scales else None, gone if self.merged_share else None

    def read(
        self,
        questions: Sequence[str],
        passages: Sequence[Passage],
        *,
        spans_per_window: int = 20,
        max_answer_length: int | None = None,
        max_rows: int | None = None,
        kept_share: float | None = None,
        passage_scores: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> list[Spans]:
        """
        Read every question with every passage; the passages are decoded once for all questions.

        :param questions: any strings; a long one is cut, see `question_room`.
        :param passages: of `encode`, or unpacked from a store.
        :param spans_per_window: candidates of each window.
        :param max_answer_length: most tokens of an answer; None for no limit.
        :param max_rows: most windows run at a time; by default as many as fit a token budget.
        :param kept_share: share of the windows that are read to the end: those whose spans, all together, are likeliest
            after the first upper layer. The others give no spans. None for the model's own.
        :param passage_scores: float (passages,) added to the score of each passage's spans, such as what retrieval
            says of it; None adds nothing.
        :param prior: float (passages,) added to the log-likelihood of each passage's windows, where some are dropped;
            None adds nothing.
        :returns: the candidates of each question.
        :raises ModelError: when the reader is joint (k = 0): use `read_jointly`; when there is one upper layer only
            and windows are to be dropped after it; when tokens of the passages were merged.
        """
        if self.joint:
            msg = "a joint reader (k = 0) has no passages of codes; use read_jointly with the texts"
            raise ModelError(msg)
        share = self._share_to_keep(kept_share)
        if any(passage.gone is not None for passage in passages):
            msg = (
                "the passages have tokens that were merged into others, and spans need every token's place: encode "
                "with merged_share = 0, or let a GenerativeReader write"
            )
            raise ModelError(msg)
        rows, joined = self._joined(passages, max_rows)
        added = added_to_rows(passage_scores, rows)
        at_first_look = added + added_to_rows(prior, rows)

        def logits(asked: _Question) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
            question, batches, first = asked.ids.shape[1], joined(asked), self.model.config.k
            if share < 1:
                batches, first = self._pruned(batches, rows.length, at_first_look, question, share, max_rows), first + 1
            for batch, states, mask in batches:
                yield batch, *self.model.span_logits(self.model.upper(states, mask, question, first))

        with torch.inference_mode():
            return [
                self._spans(logits(self._question(question)), rows, added, spans_per_window, max_answer_length)
                for question in questions
            ]

    def read_jointly(
        self,
        question: str,
        texts: Sequence[str],
        *,
        spans_per_window: int = 20,
        max_answer_length: int | None = None,
        max_rows: int | None = None,
        passage_scores: np.ndarray | None = None,
    ) -> Spans:
        """
        Read as the ordinary reader does, every layer over question and passage together; see `read`.

        :param question: any string; its part is cut at half of max_seq_length.
        :param texts: any strings.
        :raises ValueError: where the question leaves no place for a window longer than the stride, or the encoder has
            too few positions.
        """
        rows, pairs, asked = self._pairs(question, texts)

        def logits() -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
            for batch, ids, mask in self._padded(pairs, max_rows):
                segments = mask.clone()
                segments[:, :asked] = 0
                out = self.model(input_ids=ids, attention_mask=mask, token_type_ids=segments)
                yield batch, out.start_logits[:, asked:], out.end_logits[:, asked:]

        with torch.inference_mode():
            added = added_to_rows(passage_scores, rows)
            return self._spans(logits(), rows, added, spans_per_window, max_answer_length)

    def _pairs(self, question: str, texts: Sequence[str]) -> tuple[Rows, list[list[int]], int]:
        """Windows of texts, token ids of their rows [question; window], tokens of the question."""
        asked = self._question_part(question, self.max_seq_length // 2)
        window = self.max_seq_length - len(asked) - len(self.frame.closing)
        documents = self.token_cache.ids(texts)
        if any(len(ids) > window for ids in documents):
            self._check_stride(window)
        for text, ids in zip(texts, documents, strict=True):
            self._check_cut(text, len(ids), window, window)  # the question is half of a row at most
        cuts = [
            (n, a)
            for n, ids in enumerate(documents)
            for a in window_starts(len(ids), window, min(self.stride, window - 1))
        ]
        parts = [documents[n][a : a + window] + list(self.frame.closing) for n, a in cuts]
        length = np.array([len(part) for part in parts], dtype=np.int64)
        self._check_positions(len(asked) + int(length.max(initial=0)))
        numbers = np.array(cuts, dtype=np.int64).reshape(-1, 2)
        rows = Rows(numbers[:, 0], numbers[:, 1], np.zeros(len(parts), dtype=np.int64), length)
        return rows, [asked + part for part in parts], len(asked)

    def _padded(self, rows: Sequence[list[int]], max_rows: int | None) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Rows of token ids in batches: their numbers, ids and mask."""
        length = np.array([len(row) for row in rows], dtype=np.int64)
        for batch in in_batches(length, self._token_budget(), max_rows):
            pad = self.tokenizer.pad_token_id or 0
            ids, mask = (t.to(self.model.device) for t in padded([rows[i] for i in batch], pad))
            yield batch, ids, mask

    def _window(self) -> int:
        """Tokens of a document in a window; raises where the settings leave none."""
        window = passage_room(self.frame, self.max_seq_length, self.model.config.max_query_length)
        self._check_stride(window)
        self._check_positions(self.max_seq_length)
        return window

    def _check_positions(self, tokens: int) -> None:
        positions = self.model.family.positions
        if positions is not None and tokens > positions:
            msg = f"max_seq_length is {self.max_seq_length}, but this encoder has only {positions} positions"
            raise ValueError(msg)

    def _check_stride(self, window: int) -> None:
        if not 0 <= self.stride < window:
            msg = (
                f"max_seq_length = {self.max_seq_length} leaves windows of {window} tokens beside the question; "
                f"the stride must be from 0 to less than that, not {self.stride}"
            )
            raise ValueError(msg)

    def _joined(
        self, passages: Sequence[Passage], max_rows: int | None
    ) -> tuple[Rows, Callable[[_Question], Iterator[_Batch]]]:
        """Windows, and what gives for a question's states the rows [question; window] in batches."""
        rows, codes = rows_of(passages), codes_of(passages)
        groups = list(in_groups(rows.length, self._decoded_tokens()))

        @lru_cache(maxsize=1)  # passages of usual number and size are one group: decoded once for all questions
        def decoded(first: int, last: int) -> Tensor:
            return self._decode(codes, int(rows.offset[first]), int(rows.offset[last - 1] + rows.length[last - 1]))

        def joined(asked: _Question) -> Iterator[_Batch]:
            question = torch.tensor([asked.ids.shape[1]], device=self.model.device)
            for first, last in groups:
                states, length = decoded(first, last), rows.length[first:last]
                ids = torch.from_numpy(codes.ids[rows.offset[first] :][: len(states), None]).to(states.device)
                offset = rows.offset[first:last] - rows.offset[first]
                for batch in in_batches(length + asked.ids.shape[1], self._token_budget(), max_rows):
                    where = (offset[batch], length[batch])
                    joint, mask = joint_rows(asked.states, states, *where)
                    if self.model.word_match is not None:
                        joint_ids, _ = joint_rows(asked.ids[..., None], ids, *where)
                        joint = self.model.marked(joint, mask, joint_ids[..., 0], question)
                    yield batch + first, joint, mask

        return rows, joined

    def _question(self, question: str) -> _Question:
        """The question read alone, by the lower layers."""
        part = self._question_part(question, self.question_room)
        ids = torch.tensor([part], device=self.model.device)
        return _Question(ids, self.model.lower(ids, None, passage=False))

    def _question_part(self, question: str, most: int) -> list[int]:
        """Token ids of the question with its special tokens, `most` of them at most."""
        ids = self.token_cache.ids([question], remember=False)[0]
        fitting = most - self.frame.around_question
        if len(ids) > fitting:
            logger.warning("A query of %d tokens is cut: the model reads %d.", len(ids), max(0, fitting))
        return question_part(self.frame, ids, most)

    @cached_property
    def _prior_table(self) -> Tensor:
        """(vocabulary, d or d + 1): the prior of every token, so that a token costs one look-up."""
        with torch.inference_mode():
            binariser = self.model.binariser
            if binariser is None:
                msg = "a reader without codes has no token prior"
                raise ModelError(msg)
            return binariser.prior_of(self.model.family.embeddings)

    @cached_property
    def _bit_table(self) -> Tensor:
        return binarise.bit_table(self.model.dtype, self.model.device)

    def _decode(self, codes: Codes, first: int, last: int) -> Tensor:
        """(last - first, d) approximate states of tokens first to last - 1."""
        device, bits = self.model.device, self.bits
        prior = self._prior_table[torch.from_numpy(codes.ids[first:last]).to(device)]
        kept = codes.kept[first:last]
        packed = codes.codes[codes.before[first] : codes.before[last]]
        code = binarise.unpack_bits(torch.from_numpy(packed).to(device), bits, self._bit_table)
        if not kept.all():
            all_bits = code.new_zeros((len(kept), bits))
            all_bits[torch.from_numpy(kept).to(device)] = code
            code = all_bits
        scales = None if codes.scales is None else torch.from_numpy(codes.scales[first:last]).to(device)
        return self.model.decode(prior, code, scales)

    def _share_to_keep(self, given: float | None) -> float:
        """The share given, else the model's; raises where windows cannot be dropped, or none would be left."""
        share = self.model.config.kept_share if given is None else given
        if not 0 < share <= 1:
            msg = f"kept_share is {share}; expected a share above 0 and up to 1"
            raise ValueError(msg)
        if share < 1 and self.model.config.k + 1 == len(self.model.family.layers):
            msg = f"kept_share is {share}, but there is no layer above the first upper one; expected 1"
            raise ModelError(msg)
        return share

    def _pruned(
        self,
        batches: Iterator[_Batch],
        lengths: np.ndarray,
        added: np.ndarray,
        question: int,
        share: float,
        max_rows: int | None,
    ) -> Iterator[_Batch]:
        """
        Rows after the first upper layer, those whose spans are then likeliest, a share of all, in new batches.

        The likelihood of a row is that of all its spans together; what is `added` goes to its logarithm.
        Memory grows with the number of those that are kept.
        """
        most = max(1, math.ceil(share * len(lengths) - ROUNDING))
        best: list[tuple[float, int, Tensor]] = []
        for batch, joint, mask in batches:
            states = self.model.first_upper(joint, mask)
            start, end = self.model.first_look(states[:, question:])
            outside = ~self._inside(lengths[batch], start)
            scores = _likelihood(start, outside) + _likelihood(end, outside)
            for row, score, state in zip(batch.tolist(), scores.tolist(), states, strict=True):
                best.append((score + added[row], row, state[: question + lengths[row]].clone()))
            best = sorted(best, key=lambda one: (-one[0], one[1]))[:most]
        kept = np.array([row for _, row, _ in best], dtype=np.int64)
        for batch in in_batches(lengths[kept] + question, self._token_budget(), max_rows):
            states = pad_sequence([best[i][2] for i in batch], batch_first=True)
            tokens = torch.from_numpy(lengths[kept[batch]] + question).to(states.device)
            present = torch.arange(states.shape[1], device=states.device)[None] < tokens[:, None]
            yield kept[batch], states, None if bool(present.all()) else present.long()

    def _inside(self, lengths: np.ndarray, logits: Tensor) -> Tensor:
        """(rows, tokens) bool: tokens of the document among `lengths` (rows,) of each window; shaped as the logits."""
        last = torch.from_numpy(lengths - len(self.frame.closing)).to(logits.device)
        return torch.arange(logits.shape[1], device=logits.device)[None] < last[:, None]

    def _spans(
        self,
        logits: Iterator[tuple[np.ndarray, Tensor, Tensor]],
        rows: Rows,
        added: np.ndarray,
        count: int,
        max_answer_length: int | None,
    ) -> Spans:
        """The best spans of each window, in the order of the windows."""
        per_row = [np.zeros((3, 0), np.float32)] * len(rows.length)
        for batch, start, end in logits:
            inside = self._inside(rows.length[batch], start)
            score, first, final = best_spans(start, end, inside, count, max_answer_length)
            block = np.stack([score.cpu().numpy(), first.cpu().numpy(), final.cpu().numpy()])  # exact: tokens < 2**24
            for place, row in enumerate(batch):
                one = block[:, place]
                per_row[row] = one[:, np.isfinite(one[0])]
        sizes = [one.shape[1] for one in per_row]
        whole = np.concatenate(per_row, 1) if per_row else np.zeros((3, 0), np.float32)
        base = np.repeat(rows.first, sizes)
        return Spans(
            passage=np.repeat(rows.passage, sizes),
            start=base + whole[1].astype(np.int64),
            end=base + whole[2].astype(np.int64),
            score=(whole[0] + np.repeat(added, sizes)).astype(np.float32),
        )

    def _token_budget(self) -> int:
        """Most tokens that are run at a time."""
        return BATCH_TOKENS.get(self.model.device.type, BATCH_TOKENS["cuda"])

    def _decoded_tokens(self) -> int:
        """Most tokens whose states are held decoded at a time."""
        return DECODED_TOKENS.get(self.model.device.type, DECODED_TOKENS["cuda"])


def _check_vocabulary(model: BTRForQuestionAnswering, tokenizer: Any, name: str) -> None:
    """Raises where the tokenizer gives a token that the model has no embedding for."""
    last, rows = max(tokenizer.get_vocab().values(), default=-1), model.family.embeddings.shape[0]
    if last >= rows:
        msg = (
            f"{name}: its tokenizer has the token id {last}, but its model {rows} embeddings; they are not of one model"
        )
        raise ModelError(msg)


def _where_any(flags: np.ndarray) -> np.ndarray | None:
    """The flags, None where none is set."""
    return flags if flags.any() else None


def _likelihood(logits: Tensor, outside: Tensor) -> Tensor:
    """(rows, tokens) logits -> (rows,) the logarithm of what all tokens but those outside have together."""
    return logits.float().masked_fill(outside, -torch.inf).logsumexp(1)
