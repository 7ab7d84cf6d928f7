# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Texts as tokens, remembered: few documents get most questions, and a text is asked for ids and for offsets."""

import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from btr_haystack.graphemes import whole_graphemes
from btr_haystack.limits import in_batches_of
from btr_haystack.windows import encodings

MOST_BYTES = 64 << 20  # of all texts that are remembered
TEXT_BYTES, TOKEN_BYTES = 1024, 256  # that a text takes beside its characters, and a token: as measured, or more
PIECE = 262_144  # characters that are tokenised at a time: while that runs, each takes up to 300 bytes
MOST_UNKNOWN = 0.5  # of a text's characters, before it is told
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # as SentencePiece writes it

logger = logging.getLogger(__name__)


class TokenCache:
    """
    A tokenizer that remembers the texts it was last asked for.

    It warns, once, of a text of which the vocabulary lacks most characters: nothing can be found in it.

    :param tokenizer: a fast transformers tokenizer.
    :param most: bytes of all texts that are remembered; a longer text is not. Copies begin with none.
    """

    def __init__(self, tokenizer: Any, most: int = MOST_BYTES) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._most = most
        self._size = 0
        self._kept: dict[str, Any] = {}  # least lately asked for first
        self._told = False

    def ids(self, texts: Sequence[str], *, remember: bool = True) -> list[list[int]]:
        """
        Token ids of each text, see `windows.tokenise`.

        :param texts: any strings.
        :param remember: keep them for the next time.
        """
        read = self.encodings if remember else self._made
        return [encoding.ids for piece in in_batches_of(texts, len, PIECE) for encoding in read(piece)]

    def offsets(self, text: str) -> np.ndarray:
        """
        Where each token of a text stands; see `offsets_of`.

        :param text: any string.
        :returns: int64 (tokens, 2): first character and the one behind the last.
        """
        return offsets_of(self.encodings([text])[0])

    def clear(self) -> None:
        """Forget all texts."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def __reduce__(self) -> tuple[type[Self], tuple[Any, int]]:
        """A copy or a pickle remembers nothing yet: another thread may be at this one, and a lock cannot be copied."""
        return type(self), (self._tokenizer, self._most)

    def encodings(self, texts: Sequence[str]) -> list[Any]:
        """
        Tokens of each text, see `windows.encodings`; remembered.

        :param texts: any strings.
        """
        with self._lock:
            found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found |= zip(missing, self._made(missing), strict=True)
        with self._lock:
            for text in dict.fromkeys(texts):
                size = _size(text, found[text])
                if self._kept.pop(text, None) is not None:
                    self._size -= size
                if size <= self._most:
                    self._kept[text] = found[text]
                    self._size += size
            while self._size > self._most:
                first = next(iter(self._kept))
                self._size -= _size(first, self._kept.pop(first))
        return [found[text] for text in texts]

    def _made(self, texts: list[str]) -> list[Any]:
        found = encodings(self._tokenizer, texts)
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and not self._told:
            for text, encoding in zip(texts, found, strict=True):
                if unknown in encoding.ids and (share := unknown_share(encoding, unknown)) > MOST_UNKNOWN:
                    self._told = True
                    logger.warning(
                        "%.0f %% of the characters of a text are unknown to the model's vocabulary: %r. Answers about "
                        "such texts are worth little; the model reads other languages. This is told once.",
                        100 * share,
                        text[:40],
                    )
                    break
        return found


def offsets_of(encoding: Any) -> np.ndarray:
    """
    Where each token of a text stands; a token that is a space alone covers no character.

    SentencePiece's tokenizers say that a lone space covers the first letter of the word behind it.

    :param encoding: of `windows.encodings`.
    :returns: int64 (tokens, 2): first character and the one behind the last, which never decreases.
    """
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    spaces = [i for i, piece in enumerate(encoding.tokens) if not piece.strip(SPACE)]
    offsets[spaces, 1] = 0
    offsets[:, 1] = np.maximum.accumulate(offsets[:, 1])
    return offsets


def part_of(text: str, offsets: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """
    The characters that a span of tokens covers, and those that belong to the same graphemes.

    :param text: the text.
    :param offsets: int64 (tokens, 2), of `offsets_of`.
    :param first: first token.
    :param last: last token.
    :returns: first character and the one behind the last; the same number twice where the tokens cover none.
    """
    start, end = int(offsets[first, 0]), int(offsets[last, 1])
    return whole_graphemes(text, start, end) if start < end else (start, start)


def unknown_share(encoding: Any, unknown: int) -> float:
    """
    Tell of how many of a text's characters the vocabulary knows nothing.

    :param encoding: of `windows.encodings`.
    :param unknown: id of the token that stands for them.
    :returns: their share of all characters but white space; 0 for a text without any.
    """
    offsets = offsets_of(encoding)
    covered = np.maximum(offsets[:, 1] - offsets[:, 0], 0)
    return float(covered[np.array(encoding.ids) == unknown].sum() / max(covered.sum(), 1))


def _size(text: str, encoding: Any) -> int:
    """Bytes that a text takes to remember."""
    return TEXT_BYTES + TOKEN_BYTES * len(encoding) + sys.getsizeof(text)
