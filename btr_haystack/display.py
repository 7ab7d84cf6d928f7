# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Text of strangers in a terminal, a log or a message: it moves no cursor, turns no writing round and stays short."""

import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats such as those of direction, surrogates, line separators
_JOINERS = "\u200c\u200d"  # formats that Persian, Indic scripts and emoji are written with
_LENGTH = 300


def shown(text: str, length: int | None = _LENGTH) -> str:
    r"""
    Escapes what a terminal would obey instead of showing it, and cuts what is long.

    >>> print(shown("Oslo\x1b[2J \u202eolso\n"), shown("x" * 1000, 5))
    Oslo\x1b[2J \u202eolso\n xx...

    :param text: written by anybody.
    :param length: characters that are kept, escapes and the dots of a cut included; None keeps all of them.
    :returns: one line.
    """
    cut = text if length is None else text[: length + 1]  # no more than that is escaped
    line = cut if cut.isprintable() else "".join(map(_escaped, cut))
    return line if length is None or len(line) <= length else f"{line[: length - 3]}..."


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
