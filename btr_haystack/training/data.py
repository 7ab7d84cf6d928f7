# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Question-passage pairs for training: the passages of a group are rivals in retrieval, wrong ones near misses."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from btr_haystack.errors import DataError
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.occurrences import nearest, trimmed
from btr_haystack.padding import padded
from btr_haystack.squad import Paragraph, Question
from btr_haystack.training.retrieval import rivals
from btr_haystack.windows import Frame, encodings, passage_room, question_part, tokenise, window_starts

NOTHING = -100  # what transformers' losses leave out
NO_ANSWER = (-1, -1)
LIKE = 1.3  # lengths are alike where neither is so many times the other

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A question to be read with a passage of its group.

    :param question: token ids of the question part.
    :param passage: index of the passage in the group.
    :param start: first answer token in the passage, -1 where it has no answer.
    :param end: last answer token, -1 where it has no answer.
    :param group: pairs of one number share a question; their spans compete.
    :param answer: token ids to be written, closing token included; none where neither the passages nor a label tell.
    """

    question: list[int]
    passage: int
    start: int
    end: int
    group: int
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Group:
    """Passages, as token ids of their passage parts, and the pairs made of them."""

    passages: list[list[int]]
    pairs: list[Pair]


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Label:
    """What is to be found, first and last token, `NO_ANSWER` where the question has none, and to be written."""

    tokens: tuple[int, int]
    said: str


class PairDataset(Dataset[Group]):
    """
    Groups of passages with questions, new ones in every epoch; item i is a function of the seed and i alone.

    The first answer that can be found is learnt: the tokens that cover it where `nearest` finds it, without white space
    and invisible characters at its ends. Questions whose answers stand nowhere in their paragraph, or have no token,
    are left out, with one warning: only questions without answers train the reader to find none.

    :param paragraphs: of `read_paragraphs`; a question without answers is one that its paragraph does not answer.
    :param tokenizer: a fast tokenizer.
    :param frame: its special tokens.
    :param length: number of groups to deal out, over as many epochs as that takes.
    :param passages: passages in a group.
    :param questions: most questions of a passage in a group.
    :param negatives: wrong passages for each question, taken from its group; 0.5 gives one to every second question.
    :param window: most tokens of a passage; a longer one gives one of its windows.
    :param max_query_length: most tokens of a question part.
    :param writes: give answers to be written, too.
    :param seed: of all choices.
    :raises DataError: if every question is left out.
    """

    def __init__(
        self,
        paragraphs: Sequence[Paragraph],
        tokenizer: Any,
        frame: Frame,
        *,
        length: int,
        passages: int = 4,
        questions: int = 4,
        negatives: float = 1.0,
        window: int = 256,
        max_query_length: int = 64,
        writes: bool = False,
        seed: int = 0,
    ) -> None:
        asked = [paragraph for paragraph in paragraphs if paragraph.questions]
        self.frame = frame
        self.length = length
        self.passages = passages
        self.questions = questions
        self.negatives = negatives
        self.window = window
        self.writes = writes
        self.seed = seed
        encoded = encodings(tokenizer, [paragraph.text for paragraph in asked])
        tokens = [_Tokens(one.ids, one.offsets) for one in encoded]
        self.paragraphs, self.tokens, self.labels = _labelled(asked, tokens)
        texts = [question.text for paragraph in self.paragraphs for question in paragraph.questions]
        ids = iter(tokenise(tokenizer, texts))
        self.question_parts = [
            [question_part(frame, next(ids), max_query_length) for _ in paragraph.questions]
            for paragraph in self.paragraphs
        ]
        self.tokenizer = tokenizer
        self.rivals = rivals(self.paragraphs) if passages > 1 else [[] for _ in self.paragraphs]
        self._epochs: dict[int, list[list[int]]] = {}

    def __len__(self) -> int:
        """Number of groups."""
        return self.length

    def __getitem__(self, index: int) -> Group:
        """Group number `index`."""
        if index >= self.length or not self.paragraphs:
            raise IndexError(index)
        epoch, place = 0, index
        while place >= len(self._epoch(epoch)):  # how many groups rivals make depends on the order
            place -= len(self._epoch(epoch))
            epoch += 1
        return self._group(self._epoch(epoch)[place], random.Random(f"{self.seed}/{index}"))  # noqa: S311

    def _epoch(self, number: int) -> list[list[int]]:
        """Each paragraph once, with those of its rivals that are left, of like length (padding) where there are any."""
        if number not in self._epochs:
            rng = random.Random(f"{self.seed}/epoch {number}")  # noqa: S311
            left = dict.fromkeys(rng.sample(range(len(self.paragraphs)), len(self.paragraphs)))
            groups = []
            while left:
                first = next(iter(left))
                size = len(self.tokens[first].ids)
                free = [other for other in self.rivals[first] if other in left]
                free.sort(key=lambda other: not 1 / LIKE <= len(self.tokens[other].ids) / max(size, 1) <= LIKE)
                members = [first, *free[: self.passages - 1]]
                groups.append(members)
                for member in members:
                    del left[member]
            rng.shuffle(groups)
            self._epochs[number] = groups
        return self._epochs[number]

    def _group(self, members: list[int], rng: random.Random) -> Group:
        starts = [
            rng.choice(window_starts(len(self.tokens[i].ids), self.window, self.window // 2) or [0]) for i in members
        ]
        passages = [
            self.tokens[i].ids[first : first + self.window] + list(self.frame.closing)
            for i, first in zip(members, starts, strict=True)
        ]
        pairs: list[Pair] = []
        group = 0
        for place, i in enumerate(members):
            questions = self.paragraphs[i].questions
            for chosen in rng.sample(range(len(questions)), min(self.questions, len(questions))):
                part, answers = self.question_parts[i][chosen], questions[chosen].answers
                label = self.labels[i][chosen]
                start, end = self._inside(label.tokens, starts[place])
                said = label.said
                if answers and start < 0:  # the window does not tell
                    said = ""
                written = self._written(said) if self.writes and said else []
                pairs.append(Pair(part, place, start, end, group, written))
                right = [trimmed(answer).lower() for answer, _ in answers]
                others = [
                    other for other, j in enumerate(members)
                    if other != place and not any(answer in self.paragraphs[j].text.lower() for answer in right)
                ]  # fmt: skip
                wrong = int(self.negatives + rng.random()) if answers or questions[chosen].label else 0  # it is one
                for other in rng.sample(others, min(wrong, len(others))):
                    pairs.append(Pair(part, other, -1, -1, group, written))
                group += 1
        return Group(passages, pairs)

    def _written(self, text: str) -> list[int]:
        return [*tokenise(self.tokenizer, [text])[0], *self.frame.closing]

    def _inside(self, tokens: tuple[int, int], first: int) -> tuple[int, int]:
        """First and last token of an answer in the window from token `first`; `NO_ANSWER` where it is not inside."""
        start, end = tokens
        return (start - first, end - first) if first <= start and end < first + self.window else NO_ANSWER


def _labelled(
    paragraphs: Sequence[Paragraph], tokens: Sequence[_Tokens]
) -> tuple[list[Paragraph], list[_Tokens], list[list[_Label]]]:
    """
    Find out what is to be learnt of each question, and leave out those of which nothing can be.

    :returns: the paragraphs that have a question left, with their tokens and a label for each question.
    """
    kept: list[tuple[Paragraph, _Tokens, list[_Label]]] = []
    nowhere = without = 0
    for paragraph, found in zip(paragraphs, tokens, strict=True):
        pairs = []
        for question in paragraph.questions:
            places = [place for answer in question.answers if (place := nearest(paragraph.text, *answer)) is not None]
            label = _label(question, paragraph.text, found.offsets, places)
            if label is not None:
                pairs.append((question, label))
            elif places:
                without += 1
            else:
                nowhere += 1
        if pairs:
            questions, labels = zip(*pairs, strict=True)
            kept.append((replace(paragraph, questions=questions), found, list(labels)))
    if nowhere or without:
        total = sum(len(paragraph.questions) for paragraph in paragraphs)
        told = (
            f"left out {nowhere + without} of {total} questions: the answers of {nowhere} stand nowhere in their "
            f"paragraph, those of {without} have no token of the model's"
        )
        if not kept:
            raise DataError(told)
        logger.warning(told)
    return [one for one, _, _ in kept], [one for _, one, _ in kept], [one for _, _, one in kept]


def _label(
    question: Question, text: str, offsets: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]
) -> _Label | None:
    if not question.answers:
        return _Label(NO_ANSWER, question.label)
    for begin, end in places:
        covering = [i for i, (a, b) in enumerate(offsets) if a < end and b > begin]
        if covering:
            return _Label((covering[0], covering[-1]), question.label or text[begin:end])
    return None


def check_window(model: BTRForQuestionAnswering, frame: Frame, window: int) -> None:
    """
    Refuse windows that the encoder has too few positions for.

    :raises ValueError: tells how many tokens a window can have.
    """
    positions = model.family.positions
    room = window if positions is None else passage_room(frame, positions, model.config.max_query_length)
    if room < window:
        msg = (
            f"window is {window}, but this encoder has only {positions} positions, those of the question and "
            f"special tokens among them; expected a window of {room} tokens or fewer"
        )
        raise ValueError(msg)


def collate(groups: Sequence[Group], pad: int = 0) -> dict[str, Tensor]:
    """
    Groups into one batch of tensors; each passage and each question stands in it once.

    :param groups: of `PairDataset`.
    :param pad: padding token id.
    :returns: question_ids and passage_ids with masks (rows, tokens), pairs (n, 2), answers (n, 2) token places in the
        passage or -1, group (n,), the question's row, and labels (question rows, tokens), -100 for nothing to write.
    """
    passages = [passage for group in groups for passage in group.passages]
    questions: list[list[int]] = []
    labels: list[list[int]] = []
    pairs, answers, numbers = [], [], []
    passage_base = 0
    for group in groups:
        question_base, seen = len(questions), {}
        for pair in group.pairs:
            if pair.group not in seen:
                seen[pair.group] = len(questions)
                questions.append(pair.question)
                labels.append(pair.answer)
            pairs.append((seen[pair.group], passage_base + pair.passage))
            answers.append((pair.start, pair.end))
            numbers.append(question_base + pair.group)
        passage_base += len(group.passages)
    question_ids, question_mask = padded(questions, pad)
    passage_ids, passage_mask = padded(passages, pad)
    label_ids, label_mask = padded(labels, pad)
    return {
        "question_ids": question_ids,
        "question_mask": question_mask,
        "passage_ids": passage_ids,
        "passage_mask": passage_mask,
        "pairs": torch.tensor(pairs),
        "answers": torch.tensor(answers),
        "group": torch.tensor(numbers),
        "labels": label_ids.masked_fill(label_mask == 0, NOTHING),
    }
