# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where a passage has an answer, whose text or place may have been written down a little differently."""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_INVISIBLE = ("Cf", "Cc")  # zero-width characters, byte order marks, soft hyphens, control characters


def trimmed(text: str) -> str:
    r"""
    Take white space and invisible characters off both ends.

    >>> trimmed("\u200b Marie Curie\u00a0\n")
    'Marie Curie'

    :param text: A text.
    :returns: What is left; may be empty.
    """
    begin = next((i for i, character in enumerate(text) if not _unseen(character)), len(text))
    end = next((i for i in range(len(text), begin, -1) if not _unseen(text[i - 1])), begin)
    return text[begin:end]


def nearest(passage: str, answer: str, place: int) -> tuple[int, int] | None:
    """
    Find an answer in a passage. White space and invisible characters at the answer's ends do not count.

    The given place is taken where the answer stands there, as it is or folded. Otherwise it is looked for as it is,
    then folded, that is, without regard to case, to composed or decomposed letters (NFC, NFD), to the kind and amount
    of white space, and to invisible characters. A place that cuts no word comes before one that does, then counts the
    distance.

    >>> nearest("Metaphysics is no Physics, nor is Physics all.", "physics", 30)
    (34, 41)
    >>> nearest("Metaphysics", "physics", -1)
    (4, 11)
    >>> nearest("Marie Curie", "Pierre", 0) is None
    True

    :param passage: The passage.
    :param answer: The answer.
    :param place: The first character that it should have; any other number than one of the passage's places will do.
    :returns: The first character and the one behind the last; None where the answer stands nowhere.
    """
    wanted = trimmed(answer)
    if not wanted:
        return None
    place += answer.index(wanted)
    if place >= 0 and passage.startswith(wanted, place):
        return place, place + len(wanted)

    def rank(found: tuple[int, int]) -> tuple[bool, bool, int]:
        return found[0] != place, _cuts(passage, *found), abs(found[0] - max(place, 0))

    best = min(_exact(passage, wanted), key=rank, default=None)
    if best is None or place >= 0 or _cuts(passage, *best):
        folded = min(_folded(passage, wanted), key=rank, default=None)
        if best is None or (folded is not None and rank(folded)[:2] < rank(best)[:2]):
            best = folded
    return best


def _unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in _INVISIBLE


def _exact(passage: str, wanted: str) -> Iterator[tuple[int, int]]:
    begin = passage.find(wanted)
    while begin >= 0:
        yield begin, begin + len(wanted)
        begin = passage.find(wanted, begin + 1)


def _folded(passage: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Places of a text that is the wanted one when both are folded; none begins or ends inside a letter."""
    text, letters = _fold(passage)
    sought, _ = _fold(wanted)
    for first, end in _exact(text, sought):
        whole = first == 0 or letters[first - 1] != letters[first]
        if whole and (end == len(text) or letters[end] != letters[end - 1]):
            yield letters[first][0], letters[end - 1][1]


@lru_cache(maxsize=8)  # the questions of a passage come one after another
def _fold(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The folded text, and for each of its characters the letter it is of: first character, and the one behind."""
    folded: list[str] = []
    letters: list[tuple[int, int]] = []
    begin = 0
    while begin < len(text):
        end = begin + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        letter = text[begin:end]
        if letter.isspace():
            part = "" if folded and folded[-1] == " " else " "
        elif _unseen(letter[0]):
            part = ""
        else:
            part = unicodedata.normalize("NFD", unicodedata.normalize("NFD", letter).casefold())
        folded += part
        letters += [(begin, end)] * len(part)
        begin = end
    return "".join(folded), letters


def _cuts(passage: str, begin: int, end: int) -> bool:
    return _goes_on(passage, begin) or _goes_on(passage, end)


def _goes_on(passage: str, place: int) -> bool:
    """Whether a word goes on over a place; scripts without upper case may write words without spaces."""
    if not 0 < place < len(passage):
        return False
    return bool(unicodedata.combining(passage[place])) or all(map(_of_word, passage[place - 1 : place + 1]))


def _of_word(character: str) -> bool:
    return character.isdecimal() or character.lower() != character.upper()
