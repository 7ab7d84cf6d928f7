# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where answers are found in their passages."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack.occurrences import nearest, trimmed

TEXT = "Curie met Curie.\r\nMarie  Curie won in Physics; METAPHYSICS is no physics."


def composed(text):
    return unicodedata.normalize("NFC", text)


def decomposed(text):
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("passage", "answer", "place", "found"),
    [
        (TEXT, "Curie", 10, 10),
        (TEXT, "Curie", 9, 10),
        (TEXT, "Curie", -1, 0),
        (TEXT, "Curie", 5000, TEXT.rindex("Curie")),
        (TEXT, " \u200bCurie\u00a0\n", 9, 10),
        (TEXT, "Marie Curie", 17, 18),  # one space, "\\r" not counted
        (TEXT, "physics", TEXT.index("Physics"), TEXT.index("Physics")),
        (TEXT, "physics", TEXT.index("PHYSICS"), TEXT.index("PHYSICS")),  # told so
        (TEXT, "physics", -1, TEXT.index("physics")),
        ("started art", "art", -1, 8),  # no part of a word where there is a word
        ("started", "art", -1, 2),
        ("the 1990s, not 1990", "1990", -1, 15),
        ("\u5728\u6771\u4eac\u7684\uff0c\u6771\u4eac\uff0c", "\u6771\u4eac", 2, 1),  # words without spaces
        (decomposed("Jos\u00e9"), "Jos\u00e9", -1, 0),
        ("Jos\u00e9", decomposed("JOS\u00c9"), -1, 0),
        ("Stra\u00dfe", "STRASSE", -1, 0),
        ("co\u00adop\u200berate", "cooperate", -1, 0),
    ],
)
def test_the_nearest_place(passage, answer, place, found):
    begin, end = nearest(passage, answer, place)
    assert begin == found
    same = [composed(" ".join(text.replace("\u00ad", "").replace("\u200b", "").split()).casefold())
            for text in (passage[begin:end], answer)]  # fmt: skip
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("passage", "answer"),
    [("", "a"), ("a", ""), ("a b", " \u200b"), (decomposed("\u00e9"), "\u00e8"), ("Stra\u00dfe", "Stras"), ("a", "b")],
)
def test_what_stands_nowhere(passage, answer):
    assert nearest(passage, answer, 0) is None


@given(st.text(max_size=40), st.integers(0, 40), st.integers(0, 40), st.integers(-3, 50))
def test_a_part_of_a_text_is_found(text, first, last, place):
    """Wherever it is looked for; at its own place, it is taken from there."""
    answer = text[first:last]
    wanted = trimmed(answer)
    found = nearest(text, answer, place)
    assert (found is None) == (not wanted)
    if found is not None:
        begin, end = found
        assert text[begin:end] == trimmed(text[begin:end])
        own = first + answer.index(wanted)
        assert nearest(text, answer, first) == (own, own + len(wanted))
