# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Ceilings of what one request may ask for: one table, checked in one place.

They are far above what a reader is asked in earnest, and keep a request of a stranger from taking the machine
(`benchmarks/ceilings.py` measures it). The ceilings of written answers stand in `generation_settings`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

from btr_haystack.errors import LimitError

MOST_WINDOWS = 65_535  # that a record can hold
SHOWN = 40  # characters of a text in a message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one call may ask for at most. Whoever needs more raises a field where the component is constructed.

    :param documents: Documents of a call of a reader. Indexing takes any number, a batch at a time.
    :param queries: of one `read_batch`.
    :param characters: of all texts of a call of a reader together, queries included; for an index of each Document.
    :param windows_per_document: windows that a Document is cut into.
    :param tokens_per_token: tokens that the model reads for each token of a Document that is split: neighbouring
        windows share `stride` tokens, and each has room for the question. By default (384 and 128) they are 2.
    :param answers: `top_k` of `BTRReader`, and `answers_per_seq`.
    :param sequence_length: `max_seq_length`. Attention takes its square.
    :param tokens_attended: tokens of passages that answers are written from, times beams or answers: each has keys and
        values of its own.
    :raises TypeError: for a field that is no whole number.
    :raises ValueError: for one below 1, and for more windows than a record holds.
    """

    documents: int = 1000
    queries: int = 1000
    characters: int = 1_000_000
    windows_per_document: int = 8192
    tokens_per_token: int = 6
    answers: int = 1000
    sequence_length: int = 1024
    tokens_attended: int = 65_536

    def __post_init__(self) -> None:
        """Refuse what is no ceiling."""
        for name, value in asdict(self).items():
            most = MOST_WINDOWS if name == "windows_per_document" else None
            expected = "a whole number, 1 or more" if most is None else f"a whole number from 1 to {most}"
            if isinstance(value, bool) or not isinstance(value, int):
                msg = f"limits has {name} = {value!r:.60}; expected {expected}"
                raise TypeError(msg)
            if value < 1 or (most is not None and value > most):
                msg = f"limits has {name} = {_shown(value)}; expected {expected}"
                raise ValueError(msg)

    @classmethod
    def of(cls, given: Any) -> Self:
        """
        Take limits up as users give them.

        :param given: limits, a dictionary of some fields, or None for the defaults.
        :returns: the limits.
        :raises TypeError: at something else.
        :raises ValueError: at a field that there is not.

        >>> Limits.of({"documents": 50}).documents
        50
        """
        if isinstance(given, cls):
            return given
        if given is None:
            return cls()
        known = [field.name for field in fields(cls)]
        if not isinstance(given, dict):
            msg = f"limits is {given!r:.60}; expected Limits, or a dictionary with some of: {', '.join(known)}"
            raise TypeError(msg)
        for name in given:
            if name not in known:
                msg = f"limits has {name!r:.60}, which there is not; expected some of: {', '.join(known)}"
                raise ValueError(msg)
        return cls(**given)

    def to_dict(self) -> dict[str, int]:
        """All fields by their names, as `of` takes them."""
        return asdict(self)

    def check(self, field: str, value: int | None, what: str) -> None:
        """
        Refuse more than a field allows.

        :param field: its name.
        :param value: what was asked for; None passes.
        :param what: names it in the message.
        :raises LimitError: where it is more.
        """
        most = getattr(self, field)
        if value is not None and value > most:
            raise LimitError(_beyond(f"{what} is {_shown(value)}", most, field))

    def check_texts(self, texts: int, characters: int, queries: int = 1) -> None:
        """
        Refuse more Documents, queries or text than one call may have.

        :param texts: Documents.
        :param characters: of all texts together.
        :param queries: that are put to them.
        :raises LimitError: where there are more.
        """
        self.check("documents", texts, "the number of Documents")
        self.check("queries", queries, "the number of queries")
        self.check("characters", characters, "the number of characters of all Documents and the query")

    def check_cut(self, tokens: int, windows: int, row: int, text: str) -> None:
        """
        Refuse a document that would be cut into too many windows, or into windows that bring too little each.

        :param tokens: of the document.
        :param windows: that it would be cut into.
        :param row: tokens of a window, with the room for a question where that may be most of it.
        :param text: the document, for the message.
        :raises LimitError: where it would.
        """
        name = f"the text {text[:SHOWN]!r} of {len(text)} characters and {tokens} tokens"
        if windows > self.windows_per_document:
            what = f"the number of windows of {name} is {windows}"
            msg = _beyond(what, self.windows_per_document, "windows_per_document")
            msg += ", split the Document, or choose a longer max_seq_length or a smaller stride"
            raise LimitError(msg)
        if (windows - 1) * row > self.tokens_per_token * tokens:
            each = -(-windows * row // tokens)
            what = f"the number of tokens to read for each token of {name}, in {windows} windows of {row}, is {each}"
            msg = _beyond(what, self.tokens_per_token, "tokens_per_token")
            msg += ", or choose a longer max_seq_length or a smaller stride"
            raise LimitError(msg)


def in_batches_of(
    items: Iterable[T], size: Callable[[T], int], most: int, count: int | None = None
) -> Iterator[list[T]]:
    """
    Cut a stream into lists that are bounded in size, so that many large items are never worked on together.

    >>> list(in_batches_of(["a", "bb", "cccc", "d"], len, most=3, count=2))
    [['a', 'bb'], ['cccc'], ['d']]

    :param items: any.
    :param size: of an item.
    :param most: of all items of a list together; a larger item is a list of its own.
    :param count: most items of a list; None for no limit.
    """
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and total + size(item) > most:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
        if total >= most or len(batch) == count:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _beyond(what: str, most: int, field: str) -> str:
    return f"{what}; expected at most {most}. Ask for less, or give the component limits with a larger {field!r}"


def _shown(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no number of thousands of digits
        return f"a number of about {int(value.bit_length() * 0.30103)} digits"
