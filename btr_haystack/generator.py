# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The generative reader at work: a question and passages into a written answer."""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from btr_haystack.citation import Citation, Cited, surface_of_ids
from btr_haystack.errors import ModelError
from btr_haystack.generation_settings import MOST_ATTENDED, MOST_STEPS, check_attended
from btr_haystack.generative import MERGE_EVERY, BTRForConditionalGeneration, View, views_of
from btr_haystack.merge import MOST_MERGED
from btr_haystack.passage import Passage
from btr_haystack.reader import SplitReader
from btr_haystack.row_form import Part, RowForm, RowTokens, tokenised
from btr_haystack.rows import Rows, added_to_rows

logger = logging.getLogger(__name__)

MOST_QUESTIONS = 16  # in one decoding: the logits of each step are kept for the scores
NOTHING_WRITTEN = math.log(sys.float_info.min)  # score of an empty answer; finite, for JSON has no infinity


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
    """
    A written answer.

    :param text: the answer, as it stands in the texts where it stands in one of them. `citation.UNKNOWN` (U+FFFD) is in
        it for characters that the model's vocabulary lacks and that could not be told from the texts.
    :param score: mean log-probability of its tokens; `NOTHING_WRITTEN` for an empty answer.
    :param citation: where it stands in the texts; None where it stands in none, or none were given.
    """

    text: str
    score: float
    citation: Citation | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Fused:
    """
    What the decoder may attend to for one question, and what the span head says of it.

    :param states: (tokens, d) of all rows.
    :param sizes: (tokens,) how many tokens each one stands for.
    :param logits: for some passages, float (2, tokens): of an answer's start and end at each of its tokens.
    """

    states: Tensor
    sizes: Tensor
    logits: dict[int, np.ndarray] = field(default_factory=dict)


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
        texts: Sequence[str] = (),
        **settings: Any,
    ) -> list[list[Written]]:
        """
        Write answers to every question from all passages, which are decoded once for all questions.

        :param questions: any strings; a long one is cut, see `question_room`.
        :param passages: of `encode`, or unpacked from a store.
        :param texts: of the passages, to cite what is written from them; without them nothing is cited.
        :param answers: to each question; more than one are found by beams, unless the settings sample.
        :param compression: at run time; none by default.
        :param max_rows: most windows run at a time; by default as many as fit a token budget.
        :param kept_share: share of the windows that are read to the end and written from: those in which the span head
            finds the likeliest spans after the first upper layer, see `SplitReader.read`. None for the model's own.
        :param prior: float (passages,), as there.
        :param settings: of transformers' `generate`, those that `check_generation` lets through.
        :returns: for each question its answers, best first; none where no passage has any text.
        :raises ValueError: for settings that are not let through.
        :raises ModelError: when the reader is joint (k = 0): use `write_jointly`; when there is one upper layer only
            and windows are to be dropped after it.
        """
        generation = self._generation(answers, settings)
        if self.joint:
            msg = "a joint reader (k = 0) has no passages of codes; use write_jointly with the texts"
            raise ModelError(msg)
        share = self._share_to_keep(kept_share)
        compression = compression or Compression()
        rows, joined = self._joined([passage.without_gone() for passage in passages], max_rows)
        added = added_to_rows(prior, rows)
        in_place = bool(texts) and all(passage.gone is None for passage in passages)

        def fused(question: str) -> _Fused:
            asked = self._question(question)
            before, batches, first = asked.ids.shape[1], joined(asked), self.model.config.k
            if share < 1:
                batches, first = self._pruned(batches, rows.length, added, before, share, max_rows), first + 1
            parts: dict[int, tuple[Tensor, Tensor]] = {}
            logits: dict[int, np.ndarray] = {}
            for batch, joint, mask in batches:
                if compression.inside:
                    states, sizes = self.model.upper_merged(joint, mask, before, compression.inside, first)
                else:
                    states = self.model.upper(joint, mask, first=first)
                    sizes = torch.ones(states.shape[:2], device=states.device) if mask is None else mask.float()
                    if in_place:
                        found = self.model.span_logits(states[:, before:])
                        _look(logits, found, rows, batch, len(self.frame.closing))
                _place(parts, batch, states, sizes)
            return _Fused(*_concatenated(parts), logits)

        tokens = int(rows.length.sum())
        self._check_attended(math.ceil(tokens * share), generation[1])
        return self._write(questions, fused, tokens, compression, texts, generation)

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
        :raises ValueError: when passages are to be compressed inside, between layers that are not split; for settings
            that are not let through; where the form leaves no place for a window longer than the stride.
        """
        compression = compression or Compression()
        if compression.inside:
            msg = f"inside is {compression.inside}, but the reader is joint and has no upper layers; expected 0"
            raise ValueError(msg)
        generation = self._generation(answers, settings)

        def fused(question: str) -> _Fused:
            if form is None:
                _, rows, _ = self._pairs(question, texts)
            else:
                rows = self._rows_in(form, question, texts, fields)
            parts: dict[int, tuple[Tensor, Tensor]] = {}
            for batch, ids, mask in self._padded(rows, max_rows):
                _place(parts, batch, self.model.joint(ids, mask), mask.float())
            return _Fused(*_concatenated(parts))

        tokens = sum(map(len, self.token_cache.ids(texts)))
        self._check_attended(tokens, generation[1])
        return self._write(questions, fused, tokens, compression, texts, generation)

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
        for text, row in zip(filter(None, texts), fitting, strict=True):
            self._check_cut(text, row.count(Part.CONTENT), row.window(room), row.window(room))
        return [[*opening, *ids, *closing] for row in fitting for ids in row.windows(room, self.stride)]

    def _write(
        self,
        questions: Sequence[str],
        fused: Callable[[str], _Fused],
        tokens: int,
        compression: Compression,
        texts: Sequence[str],
        generation: tuple[dict[str, Any], int, int],
    ) -> list[list[Written]]:
        """Answers to questions about so many tokens; `fused` gives what a question's decoder may attend to."""
        if not tokens:
            return [[] for _ in questions]
        settings, rows, steps = generation
        room = min(self._decoded_tokens() // (tokens * rows), MOST_STEPS // (rows * steps))
        together = max(1, min(room, MOST_QUESTIONS))
        found: list[list[Written]] = []
        cited = Cited(texts, self.token_cache, self.tokenizer.unk_token_id)
        with torch.inference_mode():
            for first in range(0, len(questions), together):
                found += self._written(
                    [fused(one) for one in questions[first : first + together]], compression, cited, settings
                )
        return found

    def _check_attended(self, tokens: int, rows: int) -> None:
        most = MOST_ATTENDED if self.limits is None else self.limits.tokens_attended
        check_attended(tokens, rows, most)

    def _generation(self, answers: int, settings: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        """The settings with as many answers and beams as are asked for; rows and tokens to be written to a question."""
        settings = {**settings, "tokenizer": self.tokenizer}  # for stop strings
        config, _ = self.model.generation(**settings)
        settings["num_return_sequences"] = answers
        beams = config.num_beams or 1
        if answers > beams and not config.do_sample:
            beams = settings["num_beams"] = answers
        config, _ = self.model.generation(**settings)
        return settings, max(beams, answers), config.max_new_tokens or config.max_length or 1

    def _written(
        self, fused: list[_Fused], compression: Compression, cited: Cited, settings: dict[str, Any]
    ) -> list[list[Written]]:
        states = pad_sequence([one.states for one in fused], batch_first=True)
        views = [View(states, pad_sequence([one.sizes for one in fused], batch_first=True))]
        if compression.inside or compression.across:
            layers = self.model.config.encoder.num_decoder_layers
            views = views_of(views[0], layers, compression.across, compression.every)
        tokens, scores = self.model.write(views, **settings)
        each = len(tokens) // len(fused)
        written = [
            self._cited(ids, score, cited, fused[i // each].logits)
            for i, (ids, score) in enumerate(zip(tokens.tolist(), scores.tolist(), strict=True))
        ]
        return [
            sorted(written[first : first + each], key=lambda one: -one.score)
            for first in range(0, len(written), each)
        ]  # fmt: skip

    def _cited(self, ids: list[int], score: float, cited: Cited, logits: dict[int, np.ndarray]) -> Written:
        """An answer, sought in the texts; of several places the one that the span head prefers."""

        def worth(place: Citation) -> float:
            tokens, seen = cited.tokens_at(place), logits.get(place.text)
            if seen is None or not len(tokens) or tokens[-1] >= seen.shape[1]:
                return -math.inf
            return float(seen[0, tokens[0]] + seen[1, tokens[-1]])

        text, citation = cited.find(surface_of_ids(self.tokenizer, ids), worth)
        return Written(text, score if text else NOTHING_WRITTEN, citation)


def _look(
    logits: dict[int, np.ndarray], found: tuple[Tensor, Tensor], rows: Rows, batch: np.ndarray, closing: int
) -> None:
    """What the span head says of rows, to the tokens of their passages; the best of windows that overlap."""
    both = torch.stack(found, 1).float().cpu().numpy()
    for row, one in zip(batch.tolist(), both, strict=True):
        passage, first, count = int(rows.passage[row]), int(rows.first[row]), int(rows.length[row]) - closing
        known = logits.get(passage, np.zeros((2, 0), np.float32))
        wide = np.full((2, max(known.shape[1], first + count)), -np.inf, np.float32)
        wide[:, : known.shape[1]] = known
        wide[:, first : first + count] = np.maximum(wide[:, first : first + count], one[:, :count])
        logits[passage] = wide


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
