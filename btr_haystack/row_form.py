# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Question and passage as one text, for models that were trained on "question: ... title: ... context: ..."."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from string import Formatter
from typing import Any, Self

import numpy as np

from btr_haystack.windows import encodings, window_starts

QUERY = "{query}"


class Part(IntEnum):
    """What a piece of a row is, and each of its tokens."""

    FIXED = 0
    QUERY = 1
    FIELD = 2
    CONTENT = 3


Piece = tuple[Part, str]


@dataclass(frozen=True, slots=True)
class RowForm:
    """
    How a question and a passage are written as one text.

    :param pieces: in order; the text of a fixed one, the name of a field.
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, prompt: str, passage_template: str) -> Self:
        """
        Take two templates apart; their texts are joined by a space.

        :param prompt: with "{query}" where the question belongs; other braces are text.
        :param passage_template: with {content} once and names of other fields in braces; "{{" is a brace.
        :returns: the form.
        :raises TypeError: where the passage template is no text.
        :raises ValueError: where there is no place for the query or the content, or more than names in braces.

        >>> RowForm.of("question: {query}", "title: {title} context: {content}").fields
        ('title',)
        """
        first, *others = prompt.split(QUERY)
        if not others:
            msg = f"prompt is {prompt!r}; expected a text with {QUERY} where the query belongs"
            raise ValueError(msg)
        asked: list[Piece] = [(Part.FIXED, first)]
        for text in others:
            asked += [(Part.QUERY, ""), (Part.FIXED, text)]
        return cls((*asked, (Part.FIXED, " "), *_passage_pieces(passage_template)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields beside the content, each once."""
        return tuple(dict.fromkeys(text for part, text in self.pieces if part is Part.FIELD))

    def filled(self, query: str, content: str, fields: Mapping[str, str]) -> list[Piece]:
        """
        Put texts in; what they are made of is never taken for a template.

        :param query: any string.
        :param content: any string.
        :param fields: by their names; one that is missing is empty.
        :returns: the row's texts in order.
        """
        given = {Part.QUERY: query, Part.CONTENT: content}
        return [
            (part, fields.get(text, "") if part is Part.FIELD else given.get(part, text)) for part, text in self.pieces
        ]


@dataclass(frozen=True, slots=True, eq=False)
class RowTokens:
    """
    The tokens of a row, n of them.

    :param ids: int64 (n,).
    :param parts: int64 (n,) what each token is of, a `Part`.
    """

    ids: np.ndarray
    parts: np.ndarray

    def count(self, part: Part) -> int:
        """Tokens of a part."""
        return int((self.parts == part).sum())

    def shortened(self, room: int, around: int) -> "RowTokens":
        """
        Cut query and fields at their ends, so that they leave the content room; a row that fits is left whole.

        Neither of them loses anything within half of what both may have.

        :param room: most tokens of a row.
        :param around: tokens beside the content that they may have however long the content is, fixed ones included.
        :returns: the row, or a shorter one.
        """
        spare = max(0, max(around, room - self.count(Part.CONTENT)) - self.count(Part.FIXED))
        fields = max(spare // 2, spare - self.count(Part.QUERY))
        query = spare - min(fields, self.count(Part.FIELD))
        kept = np.ones(len(self.ids), np.bool_)
        for part, most in ((Part.QUERY, query), (Part.FIELD, fields)):
            of_part = self.parts == part
            kept &= ~of_part | (of_part.cumsum() <= most)
        return RowTokens(self.ids[kept], self.parts[kept])

    def window(self, room: int) -> int:
        """Most tokens of the content in a row of so many."""
        return room - len(self.ids) + self.count(Part.CONTENT)

    def windows(self, room: int, stride: int) -> list[list[int]]:
        """
        Rows with a window of the content each, and with all that stands around it.

        :param room: most tokens of a row.
        :param stride: tokens of the content that neighbouring windows share.
        :returns: token ids, row by row; one row where there is no content.
        """
        count, window = self.count(Part.CONTENT), self.window(room)
        first = int(np.argmax(self.parts == Part.CONTENT)) if count else len(self.ids)
        ids = self.ids.tolist()
        before, content, behind = ids[:first], ids[first : first + count], ids[first + count :]
        starts = window_starts(count, window, min(stride, window - 1)) or [0]
        return [before + content[start : start + window] + behind for start in starts]


def tokenised(tokenizer: Any, rows: Sequence[Sequence[Piece]]) -> list[RowTokens]:
    """
    Tokens of each row, as of one text; special tokens that its fixed pieces name are those tokens.

    :param tokenizer: a fast transformers tokenizer.
    :param rows: of `RowForm.filled`.
    :returns: the tokens of each row, without special tokens around it.
    """
    special = tokenizer.get_added_vocab()
    names = re.compile("({})".format("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)"))
    cut = [list(_runs(row, names)) for row in rows]
    texts = ["".join(text for _, text in run) for runs in cut for run in runs if not isinstance(run, str)]
    encoded = iter(encodings(tokenizer, texts))

    def tokens(run: list[Piece] | str) -> tuple[Sequence[int], Sequence[int]]:
        return ([special[run]], [Part.FIXED]) if isinstance(run, str) else _tokens(run, next(encoded))

    return [_together(map(tokens, runs)) for runs in cut]


def _passage_pieces(template: str) -> list[Piece]:
    """The pieces of a passage template."""
    if not isinstance(template, str):
        msg = f"passage_template is {template!r}; expected a text such as 'title: {{title}} context: {{content}}'"
        raise TypeError(msg)
    told = f"passage_template is {template!r}"
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        msg = f"{told}: {error}. Write {{{{ and }}}} for braces that are text."
        raise ValueError(msg) from error
    pieces: list[Piece] = []
    for text, name, form, conversion in parsed:
        pieces.append((Part.FIXED, text))
        if name is None:
            continue
        if not name or form or conversion or re.search(r"[.\[\]{}]", name):
            msg = (
                f"{told}, with more than a name in braces, or none; expected {{content}} and names of the documents' "
                "meta, such as {title}, without attributes, indexes or formats"
            )
            raise ValueError(msg)
        if name == "query":
            msg = f"{told}, with {QUERY}, which belongs into the prompt"
            raise ValueError(msg)
        pieces.append((Part.CONTENT, "") if name == "content" else (Part.FIELD, name))
    if sum(part is Part.CONTENT for part, _ in pieces) != 1:
        msg = f"{told}; expected {{content}} in it, once"
        raise ValueError(msg)
    return pieces


def _runs(row: Iterable[Piece], names: re.Pattern[str]) -> Iterator[list[Piece] | str]:
    """Pieces that are one text to the tokenizer, and between them the special tokens that fixed pieces name."""
    run: list[Piece] = []
    for part, text in row:
        for place, bit in enumerate(names.split(text) if part is Part.FIXED else [text]):
            if place % 2:
                yield run
                yield bit
                run = []
            else:
                run.append((part, bit))
    yield run


def _tokens(run: Sequence[Piece], encoding: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Token ids of a run, and the part in which each token ends: a space belongs to the word behind it."""
    ends = np.cumsum([len(text) for _, text in run])
    last = np.array([end - 1 for _, end in encoding.offsets], dtype=np.int64).clip(0, max(ends[-1] - 1, 0))
    pieces = np.maximum.accumulate(np.searchsorted(ends, last, side="right"))
    return encoding.ids, np.array([part for part, _ in run], dtype=np.int64)[pieces].tolist()


def _together(runs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> RowTokens:
    ids, parts = (list(chain.from_iterable(one)) for one in zip(*runs, strict=True))
    return RowTokens(np.array(ids, dtype=np.int64), np.array(parts, dtype=np.int64))
