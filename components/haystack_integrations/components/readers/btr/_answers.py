# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""From scored token spans to Haystack answers: the rules of Haystack's extractive reader."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from numbers import Real

import numpy as np
import torch
from haystack import Document, ExtractedAnswer, logging

from btr_haystack.reader import Spans
from btr_haystack.tokens import TokenCache, part_of

logger = logging.getLogger(__name__)

FEW = 64  # spans that are compared one by one


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """Which answers are given, and how they are scored; `BTRReader` tells what each means."""

    top_k: int
    score_threshold: float | None
    no_answer: bool
    calibration_factor: float
    overlap_threshold: float | None


def weighted_scores(documents: Sequence[Document], weight: float) -> np.ndarray | None:
    """
    What the retriever's scores add to the reader's: 0 for the best document, so that probabilities stay what they are.

    >>> weighted_scores([Document(content="a", score=3.0), Document(content="b", score=1.0)], 0.5).tolist()
    [0.0, -1.0]

    :param documents: one without a finite score counts as the one with the lowest.
    :param weight: 0 for nothing.
    :returns: float32 (documents,), 0 or less; None where nothing is added.
    """
    scores = _scores(documents).astype(np.float32)
    finite = np.isfinite(scores)
    if not weight or not finite.any():
        return None
    lowest, highest = scores[finite].min(), scores[finite].max()
    return (np.where(finite, scores, lowest) - highest) * np.float32(weight)


def rank_prior(documents: Sequence[Document]) -> np.ndarray | None:
    """
    The logarithm of one over the rank that the retriever's scores give each document, whatever their scale.

    >>> np.exp(rank_prior([Document(content="a", score=3.0), Document(content="b", score=9.0)])).tolist()
    [0.5, 1.0]

    :param documents: equal scores share the best of their ranks; one without a finite score comes last.
    :returns: float32 (documents,), 0 or less; None where no document has a score.
    """
    scores = _scores(documents)
    finite = np.isfinite(scores)
    if not finite.any():
        return None
    scores[~finite] = -np.inf
    better = np.searchsorted(np.sort(-scores), -scores)
    return -np.log1p(better).astype(np.float32)


def _scores(documents: Sequence[Document]) -> np.ndarray:
    """float64 (documents,) what the retriever gave each; nan where it gave nothing."""
    return np.array([math.nan if document.score is None else document.score for document in documents], np.float64)


def best_documents(spans: Spans, documents: Sequence[Document], count: int) -> list[int]:
    """
    Choose the documents with the best spans.

    :param spans: of `documents`, by number.
    :param documents: any.
    :param count: how many, at most.
    :returns: their numbers, the best first; those without a span, as where their windows were pruned, come last, by the
        order of the retriever's scores. Blank ones without a span never.
    """
    best = np.full(len(documents), -np.inf, np.float32)
    np.maximum.at(best, spans.passage, spans.score)
    prior = rank_prior(documents)
    order = np.argsort(-best, kind="stable") if prior is None else np.lexsort((-prior, -best))
    return [i for i in order.tolist() if best[i] > -np.inf or (documents[i].content or "").strip()][:count]


def candidates(
    spans: Spans, documents: Sequence[Document], tokens: TokenCache, query: str, calibration_factor: float
) -> Iterator[ExtractedAnswer]:
    """
    Turn spans into answers one by one, best first, so that only the documents that are looked at are tokenised.

    :param spans: of `documents`, by number.
    :param documents: with text.
    :param tokens: of the reader.
    :param query: the question.
    :param calibration_factor: probability of a span = sigmoid(factor x score).
    """
    scores = torch.sigmoid(torch.from_numpy(spans.score) * calibration_factor).numpy()
    offsets: dict[int, np.ndarray] = {}
    for i in np.argsort(-spans.score, kind="stable").tolist():  # probabilities near 1 are all alike
        if not scores[i] > 0:
            return
        number = int(spans.passage[i])
        document = documents[number]
        text = document.content or ""
        if number not in offsets:
            offsets[number] = tokens.offsets(text)
        start, end = part_of(text, offsets[number], int(spans.start[i]), int(spans.end[i]))
        if start == end:  # tokens that are white space
            continue
        yield ExtractedAnswer(
            query=query,
            data=text[start:end],
            document=document,
            score=float(scores[i]),
            document_offset=ExtractedAnswer.Span(start, end),
            meta={},
        )


def choose(answers: Iterable[ExtractedAnswer], query: str, rules: AnswerRules) -> list[ExtractedAnswer]:
    """
    Choose among candidates, and say how likely it is that none of the chosen is right.

    :param answers: best first.
    :param query: the question.
    :param rules: how.
    :returns: best first.
    """
    kept = [with_page_number(answer) for answer in islice(distinct(answers, rules.overlap_threshold), rules.top_k)]
    if rules.no_answer:
        none_right = math.prod(1 - answer.score for answer in kept)
        kept.append(ExtractedAnswer(query=query, data=None, document=None, score=none_right, meta={}))
    kept.sort(key=lambda answer: answer.score, reverse=True)
    if rules.score_threshold is None:
        return kept
    return [answer for answer in kept if answer.score >= rules.score_threshold]


def distinct(answers: Iterable[ExtractedAnswer], threshold: float | None) -> Iterator[ExtractedAnswer]:
    """
    Leave out an answer that overlaps too much with an earlier one of the same document.

    :param answers: best first; one without document or offset is kept.
    :param threshold: largest part of either answer that both may share; None keeps all.
    """
    if threshold is None:
        yield from answers
        return
    kept: dict[str, _Kept] = defaultdict(_Kept)
    for answer in answers:
        span = answer.document_offset
        if answer.document is not None and span is not None:
            earlier = kept[answer.document.id]
            if earlier.share_more(span, threshold):
                continue
            earlier.add(span)
        yield answer


class _Kept:
    """Spans of one document: a few are compared one by one, many at once."""

    def __init__(self) -> None:
        self._few: list[ExtractedAnswer.Span] = []
        self._many = np.zeros((2, 0), np.int64)  # starts and ends of those before the few

    def add(self, span: ExtractedAnswer.Span) -> None:
        self._few.append(span)
        if len(self._few) == FEW:
            self._many = np.hstack([self._many, np.array([(one.start, one.end) for one in self._few]).T])
            self._few = []

    def share_more(self, span: ExtractedAnswer.Span, threshold: float) -> bool:
        """Whether one of them shares more than a part with a span."""
        if any(_shared_part(span, other) > threshold for other in self._few):
            return True
        if not self._many.size:
            return False
        start, end = self._many
        shared = np.minimum(end, span.end) - np.maximum(start, span.start)
        touching = shared > 0
        shorter = np.minimum(end - start, span.end - span.start)[touching]
        return bool((shared[touching] / shorter > threshold).any())


def _shared_part(one: ExtractedAnswer.Span, other: ExtractedAnswer.Span) -> float:
    """The part that two spans share of the shorter one; 0 where they only touch."""
    shared = overlap(one.start, one.end, other.start, other.end)
    return shared / min(one.end - one.start, other.end - other.start) if shared else 0.0


def overlap(start: int, end: int, other_start: int, other_end: int) -> int:
    """
    Count the characters that two spans share.

    >>> overlap(0, 9, 4, 20), overlap(0, 4, 4, 20)
    (5, 0)
    """
    return max(0, min(end, other_end) - max(start, other_start))


def _whole(number: object) -> int | None:
    """A whole number, whatever its type, as JSON, data frames and NumPy have them; None for anything else."""
    if isinstance(number, bool) or not isinstance(number, Real | Decimal):
        return None
    try:
        whole = int(number)  # type: ignore[arg-type] # every Real has __trunc__, says its documentation
    except (OverflowError, ValueError):  # infinite, or no number
        return None
    return whole if whole == number else None


def with_page_number(answer: ExtractedAnswer) -> ExtractedAnswer:
    r"""
    Add the number of the page on which an answer stands, where its document gives that of its first page.

    :param answer: its document marks new pages with "\f".
    :returns: the answer, with "answer_page_number" in its meta if that number is a whole one, of whatever type.
    """
    document, span = answer.document, answer.document_offset
    if document is None or span is None or not document.content or "page_number" not in document.meta:
        return answer
    first = _whole(document.meta["page_number"])
    if first is None:
        logger.warning(
            "Document's page_number must be int but is {type}. No page number will be added to the answer.",
            type=type(document.meta["page_number"]),
        )
        return answer
    page = first + document.content.count("\f", 0, span.start)
    return replace(answer, meta={**(answer.meta or {}), "answer_page_number": page})
