# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Texts as tokens, remembered: few documents get most questions, and a text is asked for ids and for offsets."""

import copy
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from btr_haystack.windows import encodings

MOST_TOKENS = 262_144  # of all texts that are remembered: about 20 MB
CHARACTERS = 16  # of a text that take as much room as a token

_LOCK = threading.Lock()  # of the module, not of an object: that can be copied, a lock cannot


class TokenCache:
    """
    A tokenizer that remembers the texts it was last asked for.

    :param tokenizer: a fast transformers tokenizer.
    :param most: room for texts that are remembered, in tokens; a longer text is not. Copies begin with none.
    """

    def __init__(self, tokenizer: Any, most: int = MOST_TOKENS) -> None:
        self._tokenizer = tokenizer
        self._most = most
        self._size = 0
        self._kept: dict[str, Any] = {}  # least lately asked for first

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """
        Token ids of each text, see `windows.tokenise`.

        :param texts: any strings.
        """
        return [encoding.ids for encoding in self._encodings(texts)]

    def offsets(self, text: str) -> np.ndarray:
        """
        Where each token of a text stands.

        :param text: any string.
        :returns: int64 (tokens, 2): first character and the one behind the last.
        """
        return np.array(self._encodings([text])[0].offsets, dtype=np.int64).reshape(-1, 2)

    def clear(self) -> None:
        """Forget all texts."""
        with _LOCK:
            self._kept.clear()
            self._size = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """One that remembers nothing yet: another thread may be at this one."""
        return type(self)(copy.deepcopy(self._tokenizer, memo), self._most)

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        with _LOCK:
            found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found |= zip(missing, encodings(self._tokenizer, missing), strict=True)
        with _LOCK:
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


def _size(text: str, encoding: Any) -> int:
    """What a text takes to remember, in tokens."""
    return 1 + len(encoding) + len(text) // CHARACTERS
