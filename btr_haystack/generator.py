# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The generative reader at work: a question and passages into a written answer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from btr_haystack.errors import ModelError
from btr_haystack.generative import MERGE_EVERY, BTRForConditionalGeneration, View, views_of
from btr_haystack.merge import MOST_MERGED
from btr_haystack.passage import Passage
from btr_haystack.reader import SplitReader
from btr_haystack.row_form import Part, RowForm, RowTokens, tokenised
from btr_haystack.rows import added_to_rows

logger = logging.getLogger(__name__)

MOST_QUESTIONS = 16  # in one decoding: the logits of each step are kept for the scores


@dataclass(frozen=True, slots=True)
class Compression:
    """
    How much of what the decoder attends to is merged at run time (paper, section 3.2); 0 changes nothing.

    :param inside: share of a passage's tokens that is merged after each upper layer; after each but the first where
        windows are dropped after that one.
    :param across: share of all passages' tokens that is merged before the first decoder layer, and again before every
        `every`-th one.
    :param every: decoder layers between two such merges (g).
    :raises ValueError: for a share outside 0 to 0.5, or `every` below 1.
    """

    inside: float = 0.0
    across: float = 0.0
    every: int = MERGE_EVERY

    def __post_init__(self) -> None:
        """Refuse what bipartite matching cannot do."""
        for name in ("inside", "across"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_MERGED:
                msg = f"{name} is {value!r}; expected a share of the tokens from 0 to {MOST_MERGED}"
                raise ValueError(msg)
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            msg = f"every is {self.every!r}; expected a number of layers, 1 or more"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Written:
    """A written answer, and the mean log-probability of its tokens."""

    text: str
    score: float


class GenerativeReader(SplitReader):
    """
    A Fusion-in-Decoder model, its tokenizer, and how documents are cut into windows; see `SplitReader`.

    Its passages are those of an extractive reader with the same lower layers and codes.
    """

    model_class: ClassVar[type[BTRForConditionalGeneration]] = BTRForConditionalGeneration
    model: BTRForConditionalGeneration

    def write(
        self,
        questions: Sequence[str],
        passages: Sequence[Passage],
        *,
        answers: int = 1,
        compression: Compression | None = None,
        max_rows: int | None = None,
        kept_share: float | None = None,
        prior: np.ndarray | None = None,
        **settings: Any,
    ) -> list[list[Written]]:
        """
        Write answers to every question from all passages, which are decoded once for all questions.

        :param questions: any strings; a long one is cut, see `question_room`.
        :param passages: of `encode`, or unpacked from a store.
        :param answers: to each question; more than one are found by beams, unless the settings sample.
        :param compression: at run time; none by default.
        :param max_rows: most windows run at a time; by default as many as fit a token budget.
        :param kept_share: share of the windows that are read to the end and written from: those in which the span head
            finds the likeliest spans after the first upper layer, see `SplitReader.read`. None for the model's own.
        :param prior: float (passages,), as there.
        :param settings: of transformers' `GenerationMixin.generate`.
        :returns: for each question its answers, best first; none where no passage has any text.
        :raises ModelError: when the reader is joint (k = 0): use `write_jointly`; when there is one upper layer only
            and windows are to be dropped after it.
        """
        if self.joint:
            msg = "a joint reader (k = 0) has no passages of codes; use write_jointly with the texts"
            raise ModelError(msg)
        share = self._share_to_keep(kept_share)
        compression = compression or Compression()
        rows, joined = self._joined([passage.without_gone() for passage in passages], max_rows)
        added = added_to_rows(prior, rows)

        def fused(question: str) -> tuple[Tensor, Tensor]:
            asked = self._question(question)
            before, batches, first = asked.ids.shape[1], joined(asked), self.model.config.k
            if share < 1:
                batches, first = self._pruned(batches, rows.length, added, before, share, max_rows), first + 1
            parts: dict[int, tuple[Tensor, Tensor]] = {}
            for batch, joint, mask in batches:
                if compression.inside:
                    states, sizes = self.model.upper_merged(joint, mask, before, compression.inside, first)
                else:
                    states = self.model.upper(joint, mask, first=first)
                    sizes = torch.ones(states.shape[:2], device=states.device) if mask is None else mask.float()
                _place(parts, batch, states, sizes)
            return _concatenated(parts)

        return self._write(questions, fused, int(rows.length.sum()), compression, answers, settings)

    def write_jointly(
        self,
        questions: Sequence[str],
        texts: Sequence[str],
        *,
        form: RowForm | None = None,
        fields: Sequence[Mapping[str, str]] | None = None,
        answers: int = 1,
        compression: Compression | None = None,
        max_rows: int | None = None,
        **settings: Any,
    ) -> list[list[Written]]:
        """
        Write as ordinary Fusion-in-Decoder does, every layer over question and passage together; see `write`.

        :param texts: any strings.
        :param form: how question and text become one; by default they are a pair to the tokenizer.
        :param fields: of each text, for the form.
        :raises ValueError: when passages are to be compressed inside, between layers that are not split; where the form
            leaves no place for a window longer than the stride.
        """
        compression = compression or Compression()
        if compression.inside:
            msg = f"inside is {compression.inside}, but the reader is joint and has no upper layers; expected 0"
            raise ValueError(msg)

        def fused(question: str) -> tuple[Tensor, Tensor]:
            if form is None:
                _, rows, _ = self._pairs(question, texts)
            else:
                rows = self._rows_in(form, question, texts, fields)
            parts: dict[int, tuple[Tensor, Tensor]] = {}
            for batch, ids, mask in self._padded(rows, max_rows):
                _place(parts, batch, self.model.joint(ids, mask), mask.float())
            return _concatenated(parts)

        tokens = sum(map(len, self.token_cache.ids(texts)))
        return self._write(questions, fused, tokens, compression, answers, settings)

    def _rows_in(
        self, form: RowForm, question: str, texts: Sequence[str], fields: Sequence[Mapping[str, str]] | None
    ) -> list[list[int]]:
        """Rows of a form, in windows that hold question and fields each; an empty text has none."""
        opening, closing = list(self.frame.opening), list(self.frame.closing)
        room = self.max_seq_length - len(opening) - len(closing)
        around = min(self.max_seq_length // 2, room - self.stride - 1)
        filled = [
            form.filled(question, text, values)
            for text, values in zip(texts, fields or [{}] * len(texts), strict=True)
            if text
        ]
        whole = tokenised(self.tokenizer, filled)
        fitting = [row.shortened(room, around) for row in whole]
        _tell_what_was_cut(whole, fitting)
        for row in fitting:
            if row.count(Part.CONTENT) > row.window(room):
                self._check_stride(row.window(room))
        return [[*opening, *ids, *closing] for row in fitting for ids in row.windows(room, self.stride)]

    def _write(
        self,
        questions: Sequence[str],
        fused: Callable[[str], tuple[Tensor, Tensor]],
        tokens: int,
        compression: Compression,
        answers: int,
        settings: dict[str, Any],
    ) -> list[list[Written]]:
        """Answers to questions about so many tokens; `fused` gives what a question's decoder may attend to."""
        if not tokens:
            return [[] for _ in questions]
        settings = {**settings, "tokenizer": self.tokenizer}  # for stop strings
        given = settings.get("generation_config") or {}
        config = given if isinstance(given, dict) else given.to_diff_dict()
        beams = settings.get("num_beams") or config.get("num_beams") or 1
        if answers > 1 and not settings.get("do_sample", config.get("do_sample")):
            beams = settings["num_beams"] = max(answers, beams)
        settings["num_return_sequences"] = answers
        room = self._decoded_tokens() // (tokens * max(beams, answers))
        together = max(1, min(room, MOST_QUESTIONS))
        found: list[list[Written]] = []
        with torch.inference_mode():
            for first in range(0, len(questions), together):
                found += self._written(
                    [fused(one) for one in questions[first : first + together]], compression, settings
                )
        return found

    def _written(
        self, fused: list[tuple[Tensor, Tensor]], compression: Compression, settings: dict[str, Any]
    ) -> list[list[Written]]:
        states, sizes = (pad_sequence([one[i] for one in fused], batch_first=True) for i in (0, 1))
        views = [View(states, sizes)]
        if compression.inside or compression.across:
            layers = self.model.config.encoder.num_decoder_layers
            views = views_of(views[0], layers, compression.across, compression.every)
        tokens, scores = self.model.write(views, **settings)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        written = [Written(text.strip(), score) for text, score in zip(texts, scores.tolist(), strict=True)]
        each = len(written) // len(fused)
        return [
            sorted(written[first : first + each], key=lambda one: -one.score)
            for first in range(0, len(written), each)
        ]  # fmt: skip


def _tell_what_was_cut(whole: Sequence[RowTokens], fitting: Sequence[RowTokens]) -> None:
    """One warning for the query, one for what the passage template has beside the content."""
    for part, name in ((Part.QUERY, "query"), (Part.FIELD, "passage template's text beside the content")):
        counts = [(row.count(part), left.count(part)) for row, left in zip(whole, fitting, strict=True)]
        cut = [(all_, left) for all_, left in counts if left < all_]
        if cut:
            logger.warning(
                "The %s has %d tokens and is cut with %d of %d documents: the model reads %d.",
                name,
                max(all_ for all_, _ in cut),
                len(cut),
                len(whole),
                min(left for _, left in cut),
            )


def _place(parts: dict[int, tuple[Tensor, Tensor]], batch: np.ndarray, states: Tensor, sizes: Tensor) -> None:
    """Rows of a batch to their places, without padding."""
    for row, state, size in zip(batch.tolist(), states, sizes, strict=True):
        parts[row] = (state[size > 0], size[size > 0])


def _concatenated(parts: dict[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All rows of a question behind each other, (tokens, d) and (tokens,)."""
    states, sizes = zip(*(parts[row] for row in sorted(parts)), strict=True)
    return torch.cat(states), torch.cat(sizes)
