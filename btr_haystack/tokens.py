# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Texts as tokens, remembered: few documents get most questions, and a text is asked for ids and for offsets."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from btr_haystack.windows import encodings

MOST_TOKENS = 262_144  # of all texts that are remembered: about 20 MB

_LOCK = threading.Lock()  # of the module, not of an object: that can be copied, a lock cannot


class TokenCache:
    """
    A tokenizer that remembers the texts it was last asked for.

    :param tokenizer: a fast transformers tokenizer.
    :param most: tokens of all texts that are remembered; a longer text is not.
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

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        with _LOCK:
            found = {text: self._kept[text] for text in texts if text in self._kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found |= zip(missing, encodings(self._tokenizer, missing), strict=True)
        with _LOCK:
            for text in dict.fromkeys(texts):
                self._size -= len(self._kept.pop(text, ()))
                if len(found[text]) <= self._most:
                    self._kept[text] = found[text]
                    self._size += len(found[text])
            while self._size > self._most:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
        return [found[text] for text in texts]
