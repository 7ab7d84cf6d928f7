# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
The bytes of one passage: `pack` writes them, `unpack` checks and reads them, `cut` shortens its codes.

What the text gives can be left out: the token ids are then a third of a record's bytes that nobody has to keep.

A checksum says that bytes are those that were written, not that they are fit to be read: anybody can compute one.
Whoever reads a store gives `unpack` the tokens of the text and the `Layout` of model and settings, and gets what fits
both.

docs/format.md gives the format byte for byte.
"""

import hashlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

from btr_haystack.errors import RecordError
from btr_haystack.passage import Layout, Passage, Tokens

VERSION = 1

_MAGIC = b"BT"
_HEADER = struct.Struct("<2sBBHHII")  # magic, version, flags, bytes of a code, windows, tokens, tokens with a code
_CHECKSUM = struct.Struct("<I")
_WIDE_IDS, _SCALES, _ONE_WINDOW, _NO_IDS, _GONE = 1, 2, 4, 8, 16
_TOKENS = _WIDE_IDS | _ONE_WINDOW | _NO_IDS  # flags that tell how tokens are written
_FLAGS = _TOKENS | _SCALES | _GONE
_BELOW_WIDE = 1 << 16  # ids below this take 2 bytes
_MAX_16_BITS = (1 << 16) - 1
_RESIDUE = 0x2144DF1C  # CRC-32 of any bytes followed by their own CRC-32
_INT32, _ID16, _ID32 = np.dtype(np.int32), np.dtype("<u2"), np.dtype("<i4")
_FLOAT32 = 1 + 1e-6  # a share of tokens is counted in float32, which may come out higher by less than this
_ADVICE = "Encode the passage again."


class _Header(NamedTuple):
    """What a record's first bytes say; see docs/format.md."""

    flags: int
    width: int
    windows: int
    tokens: int
    coded: int


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
    coded, width = passage.codes.shape
    n, scales, gone = len(passage.ids), passage.scales, passage.gone
    flags, tokens = _token_bytes(passage.ids, passage.windows, keep_ids)
    flags |= _SCALES * (scales is not None) | _GONE * (gone is not None)
    body = b"".join(
        (
            _HEADER.pack(_MAGIC, VERSION, flags, width, len(passage.windows), n, coded),
            tokens,
            _flag_bytes(passage.kept) if 0 < coded < n else b"",
            b"" if gone is None else _flag_bytes(gone),
            passage.codes.tobytes(),
            b"" if scales is None else scales.tobytes(),
        )
    )
    return _signed(body)


def unpack(data: bytes, tokens: Tokens | None = None, layout: Layout | None = None) -> Passage:
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

    :param data: what `pack` gave, or what somebody else says it gave.
    :param tokens: token ids and windows of the text (`SplitReader.tokens`): a record of other ones is refused. None
        reads a record that has its own, whatever they are.
    :param layout: of the model and settings that read it (`SplitReader.layout`): a record that these do not write is
        refused. None takes any.
    :returns: the passage; its arrays may be read-only views into `data`.
    :raises RecordError: if the record is cut short, too long, changed anywhere, or of another version; if its tokens
        are others, or it leaves them out and they are not given; if it is of another layout. Nothing larger than the
        record and the tokens is made before that is known.
    """
    header, parts = _checked(data, tokens, layout)
    tokens = _own_tokens(data, header, parts) if tokens is None else _of_text(data, header, tokens)
    kept, gone = _masks(data, header, parts)
    if kept is None:
        kept = np.full(header.tokens, header.coded > 0)
    if gone is not None and layout is not None:
        _check_share_of_gone(gone, header.coded, tokens.windows, layout)
    at = len(data) - parts.checksum - parts.scales - parts.codes
    codes = np.frombuffer(data, np.uint8, parts.codes, at).reshape(header.coded, header.width)
    scales = np.frombuffer(data, np.uint8, parts.scales, at + parts.codes) if header.flags & _SCALES else None
    return Passage(tokens.ids, tokens.windows, kept, codes, scales, gone)


def check(data: bytes) -> RecordParts:
    """
    Checks that a record's bytes are those that were written.

    :param data: what `pack` gave.
    :returns: the bytes of each part.
    :raises RecordError: if the record is cut short, too long, changed anywhere, or of another version.
    """
    return _checked(data, None, None)[1]


def token_counts(data: bytes) -> tuple[int, int]:
    """
    Reads from a record's header how many tokens it is of.

    :param data: a record that `check` has let through.
    :returns: tokens, and those of them that have a code.
    """
    *_, n, coded = _HEADER.unpack_from(data)
    return n, coded


def cut(data: bytes, bits: int, layout: Layout | None = None) -> bytes:
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

    :param data: what `pack` gave, or what somebody else says it gave.
    :param bits: bits a token, 0 or more; no more than its codes have.
    :param layout: of the model and settings that wrote it, see `unpack`.
    :returns: the shorter record; the tokens in it are not compared with any text.
    :raises RecordError: see `unpack`; if its codes have fewer bits.
    """
    header, parts = _checked(data, None, layout)
    _masks(data, header, parts)
    if bits > 8 * header.width:
        msg = f"The passage record has codes of {8 * header.width} bits, {bits} are wanted. {_ADVICE}"
        raise RecordError(msg)
    first = len(data) - parts.checksum - parts.scales - parts.codes
    codes = np.frombuffer(data, np.uint8, parts.codes, first).reshape(header.coded, header.width)
    codes = codes[:, : -(-bits // 8)].copy()
    if bits % 8:
        codes[:, -1] &= (1 << bits % 8) - 1
    short = _HEADER.pack(_MAGIC, VERSION, *header._replace(width=codes.shape[1]))
    rest = data[first + parts.codes : -parts.checksum]
    return _signed(short + data[parts.header : first] + codes.tobytes() + rest)


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
    return _parts_of(_header_of(data), len(data))


def _header_of(data: bytes) -> _Header:
    """The header, if it is of this version and does not contradict itself."""
    smallest = _HEADER.size + _CHECKSUM.size
    if len(data) < smallest:
        msg = f"The passage record is cut short: it has {len(data)} bytes, the smallest has {smallest}. {_ADVICE}"
        raise RecordError(msg)
    magic, version, *numbers = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        msg = f"Not a passage record: it starts with {magic!r} where {_MAGIC!r} is expected. {_ADVICE}"
        raise RecordError(msg)
    if version != VERSION:
        msg = (
            f"The passage record has version {version}, this btr-haystack reads version {VERSION}. "
            "Update btr-haystack, or encode the passage again."
        )
        raise RecordError(msg)
    header = _Header(*numbers)
    one_window, no_ids = header.flags & _ONE_WINDOW, header.flags & _NO_IDS
    if (
        header.flags & ~_FLAGS
        or header.coded > header.tokens
        or (one_window and (header.windows != 1 or header.tokens == 0))
        or (no_ids and header.flags & (_WIDE_IDS | _ONE_WINDOW))
    ):
        msg = f"The header of the passage record contradicts itself: {data[: _HEADER.size].hex()}. {_ADVICE}"
        raise RecordError(msg)
    return header


def _parts_of(header: _Header, length: int) -> RecordParts:
    """The bytes of each part, if they are as many as the record has."""
    flags, width, windows, n, coded = header
    parts = RecordParts(
        header=_HEADER.size,
        windows=0 if flags & (_ONE_WINDOW | _NO_IDS) else 8 * windows,
        ids=_CHECKSUM.size if flags & _NO_IDS else (4 if flags & _WIDE_IDS else 2) * n,
        mask=(n + 7) // 8 if 0 < coded < n else 0,
        gone=(n + 7) // 8 if flags & _GONE else 0,
        codes=coded * width,
        scales=n if flags & _SCALES else 0,
        checksum=_CHECKSUM.size,
    )
    if length != sum(parts):
        fault = "is cut short" if length < sum(parts) else "is too long"
        msg = f"The passage record {fault}: it has {length} bytes, its header calls for {sum(parts)}. {_ADVICE}"
        raise RecordError(msg)
    return parts


def _checked(data: bytes, tokens: Tokens | None, layout: Layout | None) -> tuple[_Header, RecordParts]:
    """Header and parts, if the bytes are those that were written and the header says what tokens and layout let it."""
    header = _header_of(data)
    parts = _parts_of(header, len(data))
    if layout is not None:
        _check_layout(header, layout)
    if tokens is not None and (header.tokens, header.windows) != (len(tokens.ids), len(tokens.windows)):
        raise _other_tokens(header, tokens)
    if zlib.crc32(data) != _RESIDUE:
        computed, stored = zlib.crc32(data[: -parts.checksum]), _CHECKSUM.unpack(data[-parts.checksum :])[0]
        fault = f"it holds the checksum {stored:#010x}, its bytes give {computed:#010x}"
        msg = f"The passage record is damaged: {fault}. {_ADVICE}"
        raise RecordError(msg)
    return header, parts


def _check_layout(header: _Header, layout: Layout) -> None:
    """Refuses a header that no passage of this layout has."""
    most = layout.coded_share * header.tokens * _FLOAT32 + header.windows  # a share of a token counts as one
    if header.width != layout.width:
        fault = f"has codes of {header.width} bytes, the store's settings give codes of {layout.width}"
    elif bool(header.flags & _SCALES) is not layout.scales:
        fault = "has no scales, the model stores them" if layout.scales else "has scales, the model stores none"
    elif header.flags & _GONE and not layout.merged_share:
        fault = "has tokens that were merged into others, the store's merged_share is 0"
    elif header.coded > most:
        fault = f"has codes for {header.coded} of {header.tokens} tokens, the coded_share is {layout.coded_share}"
    else:
        return
    msg = f"The passage record {fault}: another model or other settings made it. {_ADVICE}"
    raise RecordError(msg)


def _flag_bytes(flags: np.ndarray) -> bytes:
    """Eight flags a byte, the first lowest."""
    return np.packbits(flags, bitorder="little").tobytes()


def _flags_at(data: bytes, at: int, n: int) -> np.ndarray:
    """The n flags of `_flag_bytes` that begin at a byte of a record."""
    return np.unpackbits(np.frombuffer(data, np.uint8, (n + 7) // 8, at), count=n, bitorder="little").view(np.bool_)


def _signed(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _token_bytes(ids: np.ndarray, windows: np.ndarray, keep_ids: bool) -> tuple[int, bytes]:
    """How windows and ids are written: flags, and the bytes; their checksum where they are left to the text."""
    if not keep_ids:
        whole = zlib.crc32(ids.astype(_ID32, copy=False).tobytes())
        return _NO_IDS, _CHECKSUM.pack(zlib.crc32(windows.astype(_ID32, copy=False).tobytes(), whole))
    wide = bool((ids >= _BELOW_WIDE).any())
    one_window = len(windows) == 1 and bool(windows[0, 0] == 0)
    first = b"" if one_window else windows.astype(_ID32).tobytes()
    return _WIDE_IDS * wide | _ONE_WINDOW * one_window, first + ids.astype(_ID32 if wide else _ID16).tobytes()


def _of_text(data: bytes, header: _Header, tokens: Tokens) -> Tokens:
    """The tokens of the text, if they are those that were encoded."""
    flags, expected = _token_bytes(tokens.ids, tokens.windows, keep_ids=not header.flags & _NO_IDS)
    if header.flags & _TOKENS != flags or data[_HEADER.size : _HEADER.size + len(expected)] != expected:
        raise _other_tokens(header, tokens)
    return tokens


def _other_tokens(header: _Header, tokens: Tokens) -> RecordError:
    return RecordError(
        f"The passage record is of {header.tokens} tokens that are not the {len(tokens.ids)} which its text gives: "
        f"another tokenizer, another release of it, or other windows have made it. {_ADVICE}"
    )


def _own_tokens(data: bytes, header: _Header, parts: RecordParts) -> Tokens:
    """The tokens that a record has itself."""
    flags, _, count, n, _ = header
    if flags & _NO_IDS:
        msg = "The passage record leaves its token ids to the text; unpack it with those of the text, as a reader does."
        raise RecordError(msg)
    ids = np.frombuffer(data, _ID32 if flags & _WIDE_IDS else _ID16, n, parts.header + parts.windows)
    ids = ids.astype(_INT32, copy=False)
    _check_ids(ids)
    if flags & _ONE_WINDOW:
        return Tokens(ids, np.array([[0, n]], _INT32))
    windows = np.frombuffer(data, _ID32, 2 * count, parts.header).reshape(count, 2).astype(_INT32, copy=False)
    _check_windows(windows, n)
    return Tokens(ids, windows)


def _masks(data: bytes, header: _Header, parts: RecordParts) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which tokens have a code, None where all or none; and which are gone, None where that is not in the record."""
    n, at = header.tokens, parts.header + parts.windows + parts.ids
    kept = _flags_at(data, at, n) if parts.mask else None
    if kept is not None and (marked := np.count_nonzero(kept)) != header.coded:
        msg = f"The mask of the passage record marks {marked} tokens where its header has {header.coded}. {_ADVICE}"
        raise RecordError(msg)
    if not header.flags & _GONE:
        return kept, None
    gone = _flags_at(data, at + parts.mask, n)
    _check_gone(gone, np.full(n, header.coded > 0) if kept is None else kept)
    return kept, gone


def _check_share_of_gone(gone: np.ndarray, coded: int, windows: np.ndarray, layout: Layout) -> None:
    """Refuses a mask of merged tokens that marks none, or in a window more than the layout's share."""
    marked = np.count_nonzero(gone)
    if marked:
        lengths = windows[:, 1]
        in_window = np.add.reduceat(gone, np.cumsum(lengths) - lengths, dtype=np.int64)
        most = layout.coded_share * len(gone) * _FLOAT32 + len(windows)
        if (in_window <= layout.merged_share * lengths * _FLOAT32).all() and coded + marked <= most:
            return
    msg = (
        f"The passage record has {marked} of {len(gone)} tokens merged into others and codes for {coded}; merged_share "
        f"{layout.merged_share} and coded_share {layout.coded_share} do not give that. {_ADVICE}"
    )
    raise RecordError(msg)


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
