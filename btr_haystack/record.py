# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
The bytes of one passage: `pack` writes them, `unpack` checks and reads them, `cut` shortens its codes.

What the text gives can be left out: the token ids are then a third of a record's bytes that nobody has to keep.

docs/format.md gives the format byte for byte.
"""

import hashlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

from btr_haystack.errors import RecordError
from btr_haystack.passage import Passage, Tokens

VERSION = 1

_MAGIC = b"BT"
_HEADER = struct.Struct("<2sBBHHII")  # magic, version, flags, bytes of a code, windows, tokens, tokens with a code
_CHECKSUM = struct.Struct("<I")
_WIDE_IDS, _SCALES, _ONE_WINDOW, _NO_IDS, _GONE = 1, 2, 4, 8, 16
_FLAGS = _WIDE_IDS | _SCALES | _ONE_WINDOW | _NO_IDS | _GONE
_BELOW_WIDE = 1 << 16  # ids below this take 2 bytes
_MAX_16_BITS = (1 << 16) - 1
_RESIDUE = 0x2144DF1C  # CRC-32 of any bytes followed by their own CRC-32
_INT32, _ID16, _ID32 = np.dtype(np.int32), np.dtype("<u2"), np.dtype("<i4")
_ADVICE = "Encode the passage again."


class RecordParts(NamedTuple):
    """Bytes that each part of a record takes; they sum to the length of the record."""

    header: int
    windows: int
    ids: int  # or the checksum of those left to the text
    mask: int
    gone: int
    codes: int
    scales: int
    checksum: int


def passage_key(text: str) -> bytes:
    """
    Names a passage by its text.

    >>> passage_key("Oslo is the capital of Norway.").hex()
    'f7f0c8ff80af7bd96f90dbed117b2d18'

    :param text: the passage; lone surrogates are allowed.
    :returns: 16 bytes, BLAKE2b of the text in UTF-8.
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pack(passage: Passage, *, keep_ids: bool = True) -> bytes:
    """
    Writes a passage as one record.

    >>> passage = Passage(
    ...     ids=np.array([71, 3, 9, 1], np.int32),
    ...     windows=np.array([[0, 4]], np.int32),
    ...     kept=np.array([True, False, True, False]),
    ...     codes=np.array([[0xA5, 0x0F], [0x3C, 0xF0]], np.uint8),
    ... )
    >>> len(pack(passage))  # header 16, ids 4 x 2, mask 1, codes 2 x 2, checksum 4
    33
    >>> len(pack(passage, keep_ids=False))  # 4 bytes in place of the ids
    29

    :param passage: shapes and dtypes as `Passage` states them.
    :param keep_ids: whether token ids and windows are in it; `unpack` has to be given them otherwise, as the text gives
        them.
    :returns: the record; equal passages give equal bytes.
    :raises RecordError: if the passage breaks what `Passage` states, or has more than 65,535 windows or codes of more
        than 65,535 bytes.
    """
    _check(passage)
    ids, windows, scales = passage.ids, passage.windows, passage.scales
    coded, width = passage.codes.shape
    wide = keep_ids and bool((ids >= _BELOW_WIDE).any())
    one_window = keep_ids and len(windows) == 1 and windows[0, 0] == 0
    flags = _WIDE_IDS * wide | _SCALES * (scales is not None) | _ONE_WINDOW * one_window | _NO_IDS * (not keep_ids)
    flags |= _GONE * (passage.gone is not None)
    if keep_ids:
        tokens = b"" if one_window else windows.astype(_ID32).tobytes()
        tokens += ids.astype(_ID32 if wide else _ID16).tobytes()
    else:
        tokens = _CHECKSUM.pack(_tokens_checksum(ids, windows))
    body = b"".join(
        (
            _HEADER.pack(_MAGIC, VERSION, flags, width, len(windows), len(ids), coded),
            tokens,
            _flag_bytes(passage.kept) if 0 < coded < len(ids) else b"",
            b"" if passage.gone is None else _flag_bytes(passage.gone),
            passage.codes.tobytes(),
            b"" if scales is None else scales.tobytes(),
        )
    )
    return _signed(body)


def unpack(data: bytes, tokens: Tokens | None = None) -> Passage:
    """
    Checks a record and reads it.

    >>> passage = Passage(
    ...     ids=np.array([71, 3, 9, 1], np.int32),
    ...     windows=np.array([[0, 4]], np.int32),
    ...     kept=np.array([True, False, True, False]),
    ...     codes=np.array([[0xA5, 0x0F], [0x3C, 0xF0]], np.uint8),
    ... )
    >>> unpack(pack(passage)).codes.tolist()
    [[165, 15], [60, 240]]
    >>> unpack(pack(passage, keep_ids=False), Tokens(passage.ids, passage.windows)).codes.tolist()
    [[165, 15], [60, 240]]

    :param data: what `pack` gave.
    :param tokens: token ids and windows of the text (`SplitReader.tokens`), for a record that leaves them out; a record
        that has them is read as it is.
    :returns: the passage; its arrays may be read-only views into `data`.
    :raises RecordError: if the record is cut short, too long, changed anywhere, or of another version; if it leaves its
        tokens out and they are not given, or are others.
    """
    parts = check(data)
    _, _, flags, width, window_count, n, coded = _HEADER.unpack_from(data)
    at = parts.header
    if flags & _NO_IDS:
        ids, windows = _of_text(data, tokens, n)
    elif flags & _ONE_WINDOW:
        windows = np.array([[0, n]], _INT32)
    else:
        windows = np.frombuffer(data, _ID32, 2 * window_count, at).reshape(window_count, 2).astype(_INT32, copy=False)
    at += parts.windows
    if not flags & _NO_IDS:
        ids = np.frombuffer(data, _ID32 if flags & _WIDE_IDS else _ID16, n, at).astype(_INT32, copy=False)
    at += parts.ids
    if parts.mask:
        kept = _flags_at(data, at, n)
    else:
        kept = np.full(n, coded > 0)
    at += parts.mask
    gone = _flags_at(data, at, n) if flags & _GONE else None
    at += parts.gone
    codes = np.frombuffer(data, np.uint8, parts.codes, at).reshape(coded, width)
    at += parts.codes
    scales = np.frombuffer(data, np.uint8, n, at) if flags & _SCALES else None

    if parts.mask and (marked := np.count_nonzero(kept)) != coded:
        msg = f"The mask of the passage record marks {marked} tokens where its header has {coded}. {_ADVICE}"
        raise RecordError(msg)
    if not flags & (_ONE_WINDOW | _NO_IDS):
        _check_windows(windows, n)
    if flags & _WIDE_IDS:
        _check_ids(ids)
    if gone is not None:
        _check_gone(gone, kept)
    return Passage(ids, windows, kept, codes, scales, gone)


def check(data: bytes) -> RecordParts:
    """
    Checks that a record's bytes are those that were written.

    :param data: what `pack` gave.
    :returns: the bytes of each part.
    :raises RecordError: if the record is cut short, too long, changed anywhere, or of another version.
    """
    parts = part_bytes(data)
    if zlib.crc32(data) != _RESIDUE:
        computed, stored = zlib.crc32(data[: -parts.checksum]), _CHECKSUM.unpack(data[-parts.checksum :])[0]
        fault = f"it holds the checksum {stored:#010x}, its bytes give {computed:#010x}"
        msg = f"The passage record is damaged: {fault}. {_ADVICE}"
        raise RecordError(msg)
    return parts


def leaves_ids(data: bytes) -> bool:
    """
    Tell whether a record leaves token ids and windows to the text.

    :param data: a record that `check` has let through.
    """
    return bool(_HEADER.unpack_from(data)[2] & _NO_IDS)


def token_counts(data: bytes) -> tuple[int, int]:
    """
    Reads from a record's header how many tokens it is of.

    :param data: a record that `check` has let through.
    :returns: tokens, and those of them that have a code.
    """
    *_, n, coded = _HEADER.unpack_from(data)
    return n, coded


def cut(data: bytes, bits: int) -> bytes:
    """
    The record with the first bits of its codes alone, as encoding with so many bits gives it.

    >>> passage = Passage(
    ...     ids=np.array([7], np.int32),
    ...     windows=np.array([[0, 1]], np.int32),
    ...     kept=np.array([True]),
    ...     codes=np.array([[0b11111111, 0b11111111]], np.uint8),
    ... )
    >>> unpack(cut(pack(passage), 11)).codes.tolist()
    [[255, 7]]

    :param data: what `pack` gave.
    :param bits: bits a token, 0 or more; no more than its codes have.
    :returns: the shorter record.
    :raises RecordError: see `check`.
    """
    parts = check(data)
    magic, version, flags, width, windows, n, coded = _HEADER.unpack_from(data)
    first = parts.header + parts.windows + parts.ids + parts.mask + parts.gone
    codes = np.frombuffer(data, np.uint8, parts.codes, first).reshape(coded, width)[:, : -(-bits // 8)].copy()
    if bits % 8:
        codes[:, -1] &= (1 << bits % 8) - 1
    header = _HEADER.pack(magic, version, flags, codes.shape[1], windows, n, coded)
    rest = data[first + parts.codes : -parts.checksum]
    return _signed(header + data[parts.header : first] + codes.tobytes() + rest)


def part_bytes(data: bytes) -> RecordParts:
    """
    Reads from a record's header how many bytes each of its parts takes.

    >>> passage = Passage(
    ...     ids=np.array([71, 3, 9, 1], np.int32),
    ...     windows=np.array([[0, 4]], np.int32),
    ...     kept=np.array([True, False, True, False]),
    ...     codes=np.array([[0xA5, 0x0F], [0x3C, 0xF0]], np.uint8),
    ... )
    >>> part_bytes(pack(passage))
    RecordParts(header=16, windows=0, ids=8, mask=1, gone=0, codes=4, scales=0, checksum=4)

    :param data: what `pack` gave. Its checksum is left to `check`.
    :returns: the bytes of each part.
    :raises RecordError: if the header is damaged or of another version, or calls for another length.
    """
    smallest = _HEADER.size + _CHECKSUM.size
    if len(data) < smallest:
        msg = f"The passage record is cut short: it has {len(data)} bytes, the smallest has {smallest}. {_ADVICE}"
        raise RecordError(msg)
    magic, version, flags, width, window_count, n, coded = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        msg = f"Not a passage record: it starts with {magic!r} where {_MAGIC!r} is expected. {_ADVICE}"
        raise RecordError(msg)
    if version != VERSION:
        msg = (
            f"The passage record has version {version}, this btr-haystack reads version {VERSION}. "
            "Update btr-haystack, or encode the passage again."
        )
        raise RecordError(msg)
    one_window = flags & _ONE_WINDOW
    no_ids = flags & _NO_IDS
    if (
        flags & ~_FLAGS
        or coded > n
        or (one_window and (window_count != 1 or n == 0))
        or (no_ids and flags & (_WIDE_IDS | _ONE_WINDOW))
    ):
        msg = f"The header of the passage record contradicts itself: {data[: _HEADER.size].hex()}. {_ADVICE}"
        raise RecordError(msg)
    parts = RecordParts(
        header=_HEADER.size,
        windows=0 if one_window or no_ids else 8 * window_count,
        ids=_CHECKSUM.size if no_ids else (4 if flags & _WIDE_IDS else 2) * n,
        mask=(n + 7) // 8 if 0 < coded < n else 0,
        gone=(n + 7) // 8 if flags & _GONE else 0,
        codes=coded * width,
        scales=n if flags & _SCALES else 0,
        checksum=_CHECKSUM.size,
    )
    if len(data) != sum(parts):
        fault = "is cut short" if len(data) < sum(parts) else "is too long"
        msg = f"The passage record {fault}: it has {len(data)} bytes, its header calls for {sum(parts)}. {_ADVICE}"
        raise RecordError(msg)
    return parts


def _flag_bytes(flags: np.ndarray) -> bytes:
    """Eight flags a byte, the first lowest."""
    return np.packbits(flags, bitorder="little").tobytes()


def _flags_at(data: bytes, at: int, n: int) -> np.ndarray:
    """The n flags of `_flag_bytes` that begin at a byte of a record."""
    return np.unpackbits(np.frombuffer(data, np.uint8, (n + 7) // 8, at), count=n, bitorder="little").view(np.bool_)


def _signed(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _tokens_checksum(ids: np.ndarray, windows: np.ndarray) -> int:
    """CRC-32 of token ids and windows, by which a record that leaves them out knows them again."""
    return zlib.crc32(windows.astype(_ID32).tobytes(), zlib.crc32(ids.astype(_ID32).tobytes()))


def _of_text(data: bytes, tokens: Tokens | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and windows that a record leaves out, if they are those that were encoded."""
    if tokens is None:
        msg = "The passage record leaves its token ids to the text; unpack it with those of the text, as a reader does."
        raise RecordError(msg)
    if len(tokens.ids) != n or _CHECKSUM.unpack_from(data, _HEADER.size)[0] != _tokens_checksum(
        tokens.ids, tokens.windows
    ):
        msg = (
            f"The passage record is of {n} tokens that are not the {len(tokens.ids)} which its text gives: another "
            f"tokenizer, or another release of it, has made it. {_ADVICE}"
        )
        raise RecordError(msg)
    return tokens.ids, tokens.windows


def _check(passage: Passage) -> None:
    """Refuses a passage that breaks what `Passage` states, or that no record can hold."""
    _check_array("ids", passage.ids, np.int32, (None,))
    n = len(passage.ids)
    _check_array("windows", passage.windows, np.int32, (None, 2))
    _check_array("kept", passage.kept, np.bool_, (n,))
    _check_array("codes", passage.codes, np.uint8, (int(np.count_nonzero(passage.kept)), None))
    if passage.scales is not None:
        _check_array("scales", passage.scales, np.uint8, (n,))
    if passage.gone is not None:
        _check_array("gone", passage.gone, np.bool_, (n,))
        _check_gone(passage.gone, passage.kept)
    _check_ids(passage.ids)
    _check_windows(passage.windows, n)
    if len(passage.windows) > _MAX_16_BITS:
        msg = f"The passage has {len(passage.windows)} windows, a record holds {_MAX_16_BITS}. Split the document."
        raise RecordError(msg)
    if (width := passage.codes.shape[1]) > _MAX_16_BITS:
        msg = f"The passage has codes of {width} bytes, a record holds codes of {_MAX_16_BITS}. Use fewer bits."
        raise RecordError(msg)


def _check_array(name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Refuses an array of another dtype or shape; None in `shape` stands for any length."""
    fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape)
    if not fits or any(want not in {None, got} for want, got in zip(shape, array.shape, strict=True)):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        expected = f"{np.dtype(dtype)} ({', '.join('any' if want is None else str(want) for want in shape)})"
        msg = f"`{name}` of the passage is {found}, {expected} is expected."
        raise RecordError(msg)


def _check_gone(gone: np.ndarray, kept: np.ndarray) -> None:
    if both := int(np.count_nonzero(gone & kept)):
        msg = f"{both} tokens of the passage are merged into others, and have codes all the same. Encode it again."
        raise RecordError(msg)


def _check_ids(ids: np.ndarray) -> None:
    if ids.size and (least := ids.min()) < 0:
        msg = f"The passage has the token id {least}, ids start at 0. Encode it again."
        raise RecordError(msg)


def _check_windows(windows: np.ndarray, n: int) -> None:
    if len(windows) and (windows.min(axis=0) < (0, 1)).any():
        first, length = windows.min(axis=0)
        msg = (
            f"The first window of the passage starts at token {first}, the shortest has {length} ids; "
            "at least 0 and 1 are expected. Encode it again."
        )
        raise RecordError(msg)
    if (total := int(windows[:, 1].sum(dtype=np.int64))) != n:
        msg = f"The windows of the passage hold {total} ids, the passage has {n}. Encode it again."
        raise RecordError(msg)
