# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Where a written answer stands in what was read; characters that the vocabulary lacks come from there."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import regex

from btr_haystack.graphemes import whole_graphemes
from btr_haystack.tokens import SPACE, TokenCache, offsets_of

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for characters that the vocabulary lacks

_GAP = regex.compile(rf"(\s*{UNKNOWN}\s*|\s+)")
_WORD_BORDER = regex.compile(r"(?w)\b")  # by Unicode's rules: 1.5 is one word, each Chinese character another
_INSIDE = -1  # of characters that the tokenizer writes otherwise, such as a ligature: there is no border within
_SHORT = 4  # characters of an answer that must stand in a text with the same capitals: "A" is not "a"
_CONTEXTS = [(n, m) for width in (16, 8, 4) for n, m in ((width, width), (width, 0), (0, width))]
_KNOWN = 3  # letters and digits around a character that tell which one it is
_MOST_PLACES = 4096  # of an answer in a text that are weighed


@dataclass(frozen=True, slots=True)
class Citation:
    """
    A part of a text that was read.

    :param text: number of the text.
    :param start: its first character there.
    :param end: the one behind its last.
    """

    text: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Surface:
    """
    A text as the vocabulary has it.

    Its characters i to j stand for those from start[i] to end[j] - 1 of the text, unless one of these is `_INSIDE`.
    """

    text: str
    start: list[int]
    end: list[int]


def surface_of_ids(tokenizer: Any, ids: Sequence[int]) -> str:
    """
    What token ids stand for, with `UNKNOWN` in place of what the vocabulary lacks.

    :param tokenizer: of a sequence-to-sequence model.
    :param ids: as the model wrote them; special tokens count for nothing.
    :returns: text, without white space around it.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in ids:
        text: str = tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()
    control = set(tokenizer.all_special_ids) - {unknown}
    pieces = [
        UNKNOWN if id_ == unknown else piece.replace(SPACE, " ")
        for id_, piece in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
        if id_ not in control
    ]
    return regex.sub(f"{UNKNOWN}+", UNKNOWN, "".join(pieces)).strip()


class Cited:
    """
    Texts that were read, in which answers are sought.

    :param texts: any strings.
    :param tokens: of the reader, to read texts as its vocabulary has them; only where that is needed.
    :param unknown: id of the token that stands for what the vocabulary lacks; None where it lacks nothing.
    """

    def __init__(self, texts: Sequence[str], tokens: TokenCache, unknown: int | None) -> None:
        self._texts = texts
        self._tokens = tokens
        self._unknown = unknown
        self._surfaces: dict[int, _Surface] = {}
        self._offsets: dict[int, np.ndarray] = {}

    def find(self, written: str, worth: Callable[[Citation], float] | None = None) -> tuple[str, Citation | None]:
        """
        Seek an answer in the texts, and put in what the vocabulary lacks.

        :param written: of `surface_of_ids`.
        :param worth: tells which of several places is best; the first one where it is not given.
        :returns: the answer as it stands there, and where; if it stands nowhere, the answer with as many unknown
            characters as could be restored from a place like it, and None. `UNKNOWN` is left for others.
        """
        if not written:
            return written, None
        places = self._places(written)
        if not places:
            return self._restored(written), None
        best = max(places, key=worth) if worth else places[0]
        return self._texts[best.text][best.start : best.end], best

    def tokens_at(self, place: Citation) -> np.ndarray:
        """
        Tell which tokens cover a part of a text.

        :param place: of `find`.
        :returns: int64 (tokens,) their numbers in the text.
        """
        if place.text not in self._offsets:  # an answer may stand at thousands of places
            self._offsets[place.text] = offsets_of(self._encodings[place.text])
        offsets = self._offsets[place.text]
        first = np.searchsorted(offsets[:, 1], place.start, side="right")
        last = np.searchsorted(offsets[:, 0], place.end, side="left")
        return np.arange(first, max(first, last))

    @cached_property
    def _encodings(self) -> list[Any]:
        return self._tokens.encodings(self._texts)

    def _places(self, written: str) -> list[Citation]:
        """All places at which a text stands as whole words, in order; with other capitals only where there is none."""
        found = self._places_of(_pattern(written), UNKNOWN in written)
        if not found and (UNKNOWN in written or len(written) > _SHORT):
            found = self._places_of(_pattern(written, regex.IGNORECASE), UNKNOWN in written)
        return found

    def _places_of(self, pattern: regex.Pattern[str], unknown: bool) -> list[Citation]:
        found: list[Citation] = []
        if not unknown:
            for number, text in enumerate(self._texts):
                found += self._whole(number, (match.span() for match in pattern.finditer(text)))
        if found:
            return found
        for number in self._worth_a_look(unknown):
            surface = self._surface(number)
            matches = pattern.finditer(surface.text)
            spans = [(surface.start[match.start()], surface.end[match.end() - 1]) for match in matches]
            found += self._whole(number, (span for span in spans if _INSIDE not in span))
        return found

    def _worth_a_look(self, unknown: bool) -> Iterator[int]:
        """Numbers of texts that are something else to the vocabulary than they are."""
        for number, text in enumerate(self._texts):
            if self._unknown in self._encodings[number].ids if unknown else not unicodedata.is_normalized("NFKC", text):
                yield number

    def _whole(self, number: int, spans: Iterator[tuple[int, int]]) -> list[Citation]:
        """Parts of a text that cut no word."""
        text = self._texts[number]
        widened = (whole_graphemes(text, start, end) for start, end in islice(spans, _MOST_PLACES) if start < end)
        return [
            Citation(number, start, end)
            for start, end in widened
            if _borders_on(text, start) and _borders_on(text, end)
        ]

    def _surface(self, number: int) -> _Surface:
        if number not in self._surfaces:
            self._surfaces[number] = _surface(self._texts[number], self._encodings[number], self._unknown)
        return self._surfaces[number]

    def _restored(self, written: str) -> str:
        """An answer that stands nowhere, with the unknown characters of the place that is most like theirs."""
        if UNKNOWN not in written:
            return written
        surfaces = [(number, self._surface(number)) for number in self._worth_a_look(unknown=True)]
        return "".join(
            self._like(written, place, surfaces) if letter == UNKNOWN else letter
            for place, letter in enumerate(written)
        )

    def _like(self, written: str, place: int, surfaces: Sequence[tuple[int, _Surface]]) -> str:
        """What stands where the texts go on as the answer does around a place; `UNKNOWN` if they differ in that."""
        for before, behind in _CONTEXTS:
            left, right = written[max(0, place - before) : place], written[place + 1 : place + 1 + behind]
            if sum(map(str.isalnum, left + right)) < _KNOWN:
                continue
            around = regex.compile(f"{regex.escape(left)}({UNKNOWN}){regex.escape(right)}", regex.IGNORECASE)
            parts = {
                self._texts[number][surface.start[match.start(1)] : surface.end[match.start(1)]]
                for number, surface in surfaces
                for match in around.finditer(surface.text)
            }
            if parts:
                return parts.pop() if len(parts) == 1 else UNKNOWN
        return UNKNOWN


def _pattern(written: str, flags: int = 0) -> regex.Pattern[str]:
    """Finds a text whatever its white space; around what is unknown there may be none, or some."""
    parts = _GAP.split(written)
    gaps = [
        (r"\s*" if i > 1 or parts[0] else "") + UNKNOWN + (r"\s*" if i < len(parts) - 2 or parts[-1] else "")
        if UNKNOWN in part
        else r"\s+"
        for i, part in enumerate(parts)
    ]
    return regex.compile("".join(gaps[i] if i % 2 else regex.escape(part) for i, part in enumerate(parts)), flags)


def _borders_on(text: str, place: int) -> bool:
    """Whether no word of a text is cut at a place."""
    return _WORD_BORDER.match(text, place) is not None or not (
        text[max(0, place - 1) : place].isalnum() and text[place : place + 1].isalnum()
    )


def _surface(text: str, encoding: Any, unknown: int | None) -> _Surface:
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for id_, piece, (first, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True):
        start = first + len(text[first:end]) - len(text[first:end].lstrip())  # some tokenizers count the space in
        shown = piece.lstrip(SPACE)
        if len(shown) < len(piece):
            letters.append(" ")
            starts.append(start)
            ends.append(start)
        if id_ == unknown:
            shown = " " if text[first:end].isspace() else UNKNOWN
            if shown == UNKNOWN == "".join(letters[-1:]):
                ends[-1] = end
                continue
        same = shown == text[start:end]
        for i, letter in enumerate(shown):
            letters.append(letter)
            starts.append(start + i if same or i == 0 else _INSIDE)
            ends.append(start + i + 1 if same else end if i == len(shown) - 1 else _INSIDE)
    return _Surface("".join(letters), starts, ends)
