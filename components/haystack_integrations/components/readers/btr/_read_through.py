# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Passages by text: from a store where it has them, encoded where it lacks them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from haystack import logging
from tqdm import tqdm  # type: ignore[import-untyped]

from btr_haystack.errors import BTRError, RecordError
from btr_haystack.limits import in_batches_of
from btr_haystack.passage import Passage, Tokens
from btr_haystack.reader import SplitReader
from btr_haystack.record import pack, passage_key, unpack
from btr_haystack.stores import Store

T = TypeVar("T")
logger = logging.getLogger(__name__)

CHUNK = 64  # passages that are encoded and committed at a time
CHUNK_TOKENS = 65_536  # of them, unless a single one has more
WRITE_BACK_SECONDS = 0.1  # that a question waits for another writer
RECORD_BYTES = 256  # that a record in memory takes beside its own


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """
    Cut a stream into lists.

    >>> list(in_chunks("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


def sound_records(store: Store, keys: Iterable[bytes], read: Callable[[bytes, bytes], T]) -> dict[bytes, T]:
    """
    Read the records that a store has; those that are refused count as missing, and are told of in one warning.

    :param store: an open store.
    :param keys: of the passages.
    :param read: takes a key and its record; raises `RecordError` to refuse it.
    :returns: what `read` gives, by the keys.
    """
    keys = list(dict.fromkeys(keys))
    found: dict[bytes, T] = {}
    refused: dict[bytes, RecordError] = {}
    for key, record in zip(keys, store.get_many(keys), strict=True):
        if record is None:
            continue
        try:
            found[key] = read(key, record)
        except RecordError as error:
            refused[key] = error
    if refused:
        key, fault = next(iter(refused.items()))
        logger.warning(
            "Passage {key} counts as missing until it is read or written again{more}. {fault}",
            key=key.hex(),
            more=f", and {len(refused) - 1} more" if len(refused) > 1 else "",
            fault=fault,
        )
    return found


def stored_passages(store: Store, reader: SplitReader, tokens: dict[bytes, Tokens]) -> dict[bytes, Passage]:
    """
    Read the passages that a store has; a record that is not what the reader makes of its text counts as missing.

    :param store: an open store.
    :param reader: tells what its passages are like.
    :param tokens: of the passages' texts, by their keys.
    :returns: the passages, by their keys.
    """
    layout = reader.layout
    return sound_records(store, tokens, lambda key, record: unpack(record, tokens[key], layout))


class ReadThrough:
    """
    Passages from a store; those that it lacks are encoded and written back.

    :param reader: encodes them.
    :param opened: gives the open store.
    :param keep_ids: whether what is written back holds its token ids.
    :param write_back: whether anything is.
    :param most: bytes that a store in memory may take; above it the oldest passages are dropped. None for no limit.
    """

    def __init__(
        self,
        reader: SplitReader,
        opened: Callable[[], Store],
        *,
        keep_ids: bool = False,
        write_back: bool = True,
        most: int | None = None,
    ) -> None:
        self._reader = reader
        self._opened = opened
        self._keep_ids = keep_ids
        self._write_back = write_back
        self._most = most
        self._written = 0  # bytes since the store was last measured, or more
        self._told = False

    def fetch(
        self, texts: Sequence[str], *, max_rows: int | None = None, progress_bar: bool = False
    ) -> tuple[list[Passage], int]:
        """
        Get the passages of some texts.

        :param texts: any strings.
        :param max_rows: most windows encoded at the same time.
        :param progress_bar: whether to show one while encoding.
        :returns: a passage for each text, and for how many of the texts it came from the store.
        :raises LimitError: for a text that is beyond the reader's limits, before any is encoded.
        :raises StoreError: if the store cannot be read.
        """
        keys = [passage_key(text) for text in texts]
        whole = dict(zip(keys, texts, strict=True))
        store = self._opened()
        tokens = dict(zip(whole, self._reader.tokens(list(whole.values()), remember=True), strict=True))
        found = stored_passages(store, self._reader, tokens)
        hits = sum(key in found for key in keys)
        missing = [key for key in whole if key not in found]
        with tqdm(total=len(missing), desc="Encoding passages", disable=not (progress_bar and missing)) as bar:
            for chunk in in_batches_of(missing, lambda key: len(tokens[key].ids), CHUNK_TOKENS, CHUNK):
                passages = self._reader.code([tokens[key] for key in chunk], max_rows=max_rows)
                found |= zip(chunk, passages, strict=True)
                if self._write_back:
                    self._write(store, dict(zip(chunk, passages, strict=True)))
                bar.update(len(chunk))
        return [found[key] for key in keys], hits

    def _write(self, store: Store, passages: dict[bytes, Passage]) -> None:
        try:
            records = {key: pack(passage, keep_ids=self._keep_ids) for key, passage in passages.items()}
            store.put_many(records.items(), wait=WRITE_BACK_SECONDS)
            if self._most is not None:
                self._written += sum(map(_bytes_in_memory, records.values()))
                if self._written > self._most:
                    self._written = _drop_oldest(store, self._most)
        except BTRError as error:
            if not self._told:
                logger.warning(
                    "Passages are encoded for each question, for they cannot be stored. {error}", error=error
                )
            self._told = True


def _bytes_in_memory(record: bytes | None) -> int:
    return 0 if record is None else len(record) + RECORD_BYTES


def _drop_oldest(store: Store, most: int) -> int:
    """
    Make a store in memory take at most nine tenths of so many bytes; it gives its keys in the order in which they came.

    :returns: the bytes that it then takes.
    """
    keys = list(store.keys())
    sizes = [_bytes_in_memory(record) for record in store.get_many(keys)]
    total, gone = sum(sizes), 0
    if total > most:
        while total > most - most // 10:
            total -= sizes[gone]
            gone += 1
        store.delete_many(keys[:gone])
    return total
