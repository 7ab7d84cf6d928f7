# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What a reader of a text takes for one character: Unicode's extended grapheme clusters (UAX 29)."""

import unicodedata

import regex

_CLUSTER = regex.compile(r"\X")
LONGEST = 256  # characters that are looked at around a place: no writing has graphemes of so many
_STANDS_ALONE = "LNPSZ"  # letters, numbers, punctuation, symbols, separators: nothing before them binds what follows


def whole_graphemes(text: str, start: int, end: int) -> tuple[int, int]:
    r"""
    Widen a part of a text so that it cuts no grapheme in two.

    >>> whole_graphemes("Jose\u0301 came", 0, 4), whole_graphemes("plain", 0, 2)
    ((0, 5), (0, 2))

    :param text: the text.
    :param start: first character of the part.
    :param end: the one behind its last; `start` for an empty part, which is widened to nothing but its grapheme.
    :returns: the widened part, as `start` and `end`.
    """
    return _border(text, start)[0], _border(text, end)[1]


def _border(text: str, place: int) -> tuple[int, int]:
    """The last border at or before a place, and the first one at or behind it: the place itself where it is one."""
    around = text[place - 1 : place + 1]
    if place <= 0 or place >= len(text) or (around.isascii() and around.isprintable()):
        return place, place
    first = place - 1
    while first > max(0, place - LONGEST) and not _certain(text, first):
        first -= 1
    last = first
    while last < place:
        first, last = last, _CLUSTER.match(text, last, place + LONGEST).end()
    return (place, place) if last == place else (first, last)


def _certain(text: str, place: int) -> bool:
    """Whether there is a border before a character, as the two around it alone can tell."""
    before = text[place - 1]
    return unicodedata.category(before)[0] in _STANDS_ALONE and _CLUSTER.match(text[place - 1 : place + 1]).end() == 1
