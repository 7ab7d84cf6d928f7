# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import hashlib
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from btr_haystack.errors import RecordError
from btr_haystack.passage import Layout, Passage, Tokens
from btr_haystack.record import check, cut, pack, part_bytes, passage_key, token_counts, unpack

DOC = Path(__file__).parent.parent / "docs" / "format.md"
EXAMPLE = Passage(
    ids=np.array([71, 3, 9, 1], np.int32),
    windows=np.array([[0, 4]], np.int32),
    kept=np.array([True, False, True, False]),
    codes=np.array([[0xA5, 0x0F], [0x3C, 0xF0]], np.uint8),
)
EMPTY = Passage(np.zeros(0, np.int32), np.zeros((0, 2), np.int32), np.zeros(0, np.bool_), np.zeros((0, 16), np.uint8))

no_deadline = settings(deadline=None)


def changed(passage, **fields):
    names = ("ids", "windows", "kept", "codes", "scales", "gone")
    return Passage(**{name: fields.get(name, getattr(passage, name)) for name in names})


def signed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def assert_same(got, want):
    for name in ("ids", "windows", "kept", "codes", "scales", "gone"):
        a, b = getattr(got, name), getattr(want, name)
        if b is None:
            assert a is None
        else:
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.array_equal(a, b)


@st.composite
def passages(draw):
    lengths = draw(st.lists(st.integers(1, 40), max_size=4))
    n = sum(lengths)
    starts = [draw(st.integers(0, 2**31 - 1)) if draw(st.booleans()) else 0 for _ in lengths]
    top = draw(st.sampled_from([10, 65_535, 65_536, 2**31 - 1]))
    kept = draw(st.one_of(st.just(np.ones(n, np.bool_)), st.just(np.zeros(n, np.bool_)), arrays(np.bool_, n)))
    width = draw(st.sampled_from([0, 1, 16, 257]))
    seed = draw(st.integers(0, 2**32 - 1))
    return Passage(
        ids=draw(arrays(np.int32, n, elements=st.integers(0, top))),
        windows=np.array(list(zip(starts, lengths, strict=True)), np.int32).reshape(-1, 2),
        kept=kept,
        codes=np.random.default_rng(seed).integers(0, 256, (int(kept.sum()), width), np.uint8),
        scales=draw(st.one_of(st.none(), arrays(np.uint8, n))),
        gone=draw(st.one_of(st.none(), arrays(np.bool_, n).map(lambda gone: gone & ~kept))),
    )


def tokens_of(passage):
    return Tokens(passage.ids, passage.windows)


@given(passages(), st.booleans())
@no_deadline
def test_round_trip(passage, keep_ids):
    data = pack(passage, keep_ids=keep_ids)
    assert_same(unpack(data, tokens_of(passage)), passage)
    assert pack(unpack(data, tokens_of(passage)), keep_ids=keep_ids) == data
    assert sum(part_bytes(data)) == len(data)
    assert check(data) == part_bytes(data)
    assert token_counts(data) == (len(passage.ids), len(passage.codes))


@given(passages())
@no_deadline
def test_records_without_ids_take_less(passage):
    whole, implied = pack(passage), pack(passage, keep_ids=False)
    saved = part_bytes(whole).ids + part_bytes(whole).windows - 4
    assert len(whole) - len(implied) == saved
    with pytest.raises(RecordError, match="leaves its token ids to the text"):
        unpack(implied)
    assert_same(unpack(whole), passage)


@given(passages(), st.booleans(), st.data())
@no_deadline
def test_other_tokens_are_refused(passage, keep_ids, data):
    ids, windows = passage.ids.copy(), passage.windows.copy()
    if len(ids) and data.draw(st.booleans()):
        ids[data.draw(st.integers(0, len(ids) - 1))] ^= 1
    elif len(ids) and data.draw(st.booleans()):
        windows[0, 0] ^= 1
    else:
        ids = np.append(ids, np.int32(1))
    with pytest.raises(RecordError, match=rf"of {len(passage.ids)} tokens that are not the {len(ids)} which its text"):
        unpack(pack(passage, keep_ids=keep_ids), Tokens(ids, windows))


@given(passages(), st.booleans(), st.data())
@no_deadline
def test_cutting_is_packing_shorter_codes(passage, keep_ids, data):
    width = passage.codes.shape[1]
    bits = data.draw(st.integers(0, 8 * width))
    codes = passage.codes[:, : -(-bits // 8)].copy()
    if bits % 8:
        codes[:, -1] &= (1 << bits % 8) - 1
    short = changed(passage, codes=codes)
    assert cut(pack(passage, keep_ids=keep_ids), bits) == pack(short, keep_ids=keep_ids)


def test_codes_cannot_be_cut_to_more_bits_than_they_have():
    with pytest.raises(RecordError, match="has codes of 16 bits, 17 are wanted"):
        cut(pack(EXAMPLE), 17)
    nothing = changed(EXAMPLE, codes=np.zeros((2, 0), np.uint8))
    with pytest.raises(RecordError, match="has codes of 0 bits, 3 are wanted"):
        cut(pack(nothing), 3)


@given(passages(), st.booleans(), st.data())
@no_deadline
def test_a_flipped_bit_is_refused(passage, keep_ids, data):
    record = bytearray(pack(passage, keep_ids=keep_ids))
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RecordError):
        unpack(bytes(record), tokens_of(passage))
    with pytest.raises(RecordError):
        cut(bytes(record), 0)


@given(passages(), st.booleans(), st.data())
@no_deadline
def test_a_record_cut_short_is_refused(passage, keep_ids, data):
    record = pack(passage, keep_ids=keep_ids)
    with pytest.raises(RecordError, match="cut short"):
        unpack(record[: data.draw(st.integers(0, len(record) - 1))], tokens_of(passage))


@given(passages(), st.binary(min_size=1, max_size=100))
@no_deadline
def test_trailing_bytes_are_refused(passage, more):
    with pytest.raises(RecordError, match="too long"):
        unpack(pack(passage) + more)


@given(st.binary(max_size=200))
@no_deadline
def test_noise_is_refused(data):
    with pytest.raises(RecordError):
        unpack(data)


numbers = st.one_of(st.integers(0, 12), st.integers(0, 2**16 - 1))


@given(st.integers(0, 255), numbers, numbers, numbers, numbers, st.binary(max_size=64))
@settings(no_deadline, max_examples=300)
def test_a_foreign_writer_gives_a_sound_passage_or_an_error(flags, width, windows, tokens, coded, rest):
    try:
        passage = unpack(signed(struct.pack("<2sBBHHII", b"BT", 1, flags, width, windows, tokens, coded) + rest))
    except RecordError:
        return
    pack(passage)  # refuses an unsound one


def test_every_bit_of_the_example():
    data = pack(EXAMPLE)
    for bit in range(8 * len(data)):
        record = bytearray(data)
        record[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError):
            unpack(bytes(record))


def test_sizes():
    everything = changed(
        EXAMPLE, kept=np.ones(4, np.bool_), codes=np.zeros((4, 16), np.uint8), scales=np.zeros(4, np.uint8)
    )
    assert part_bytes(pack(everything)) == (16, 0, 8, 0, 0, 64, 4, 4)
    nothing = changed(EXAMPLE, kept=np.zeros(4, np.bool_), codes=np.zeros((0, 16), np.uint8))
    assert part_bytes(pack(nothing)) == (16, 0, 8, 0, 0, 0, 0, 4)
    two_windows = changed(EXAMPLE, windows=np.array([[0, 3], [1, 1]], np.int32))
    assert part_bytes(pack(two_windows)) == (16, 16, 8, 1, 0, 4, 0, 4)
    wide = changed(EXAMPLE, ids=np.array([0, 1, 2, 65_536], np.int32))
    assert part_bytes(pack(wide)) == (16, 0, 16, 1, 0, 4, 0, 4)
    assert len(pack(EMPTY)) == 20
    fewer = changed(EXAMPLE, gone=np.array([False, True, False, False]))
    assert part_bytes(pack(fewer)) == (16, 0, 8, 1, 1, 4, 0, 4)
    assert part_bytes(pack(two_windows, keep_ids=False)) == (16, 0, 4, 1, 0, 4, 0, 4)


def test_unpacked_arrays_are_views_that_nobody_can_write():
    codes = unpack(pack(EXAMPLE)).codes
    assert not codes.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        codes[0, 0] = 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes, the smallest has 20"),
        (b"PK" + pack(EXAMPLE)[2:], r"starts with b'PK' where b'BT' is expected"),
        (b"BT\x02" + pack(EXAMPLE)[3:], "has version 2, this btr-haystack reads version 1. Update btr-haystack"),
        (b"BT\x00" + pack(EXAMPLE)[3:], "has version 0"),
        (pack(EXAMPLE)[:-1], "has 32 bytes, its header calls for 33. Encode the passage again"),
        (pack(EXAMPLE) + b"x", "has 34 bytes, its header calls for 33"),
        (pack(EXAMPLE)[:-1] + b"x", "holds the checksum 0x78.*, its bytes give 0x"),
        (signed(struct.pack("<2sBBHHII", b"BT", 1, 128, 0, 0, 0, 0)), "contradicts itself"),
        (signed(struct.pack("<2sBBHHII", b"BT", 1, 12, 0, 1, 1, 0) + b"\0\0\0\0"), "contradicts itself"),
        (pack(EXAMPLE, keep_ids=False), "leaves its token ids to the text; unpack it with those of the text"),
        (signed(struct.pack("<2sBBHHII", b"BT", 1, 4, 0, 2, 1, 0) + b"\0\0"), "contradicts itself"),
        (signed(struct.pack("<2sBBHHII", b"BT", 1, 0, 0, 0, 0, 1)), "contradicts itself"),
        (signed(struct.pack("<2sBBHHII", b"BT", 1, 4, 1, 1, 2, 1) + b"\0\0\0\0\3."), "marks 2 tokens .* has 1"),
        (signed(struct.pack("<2sBBHHIIiiH", b"BT", 1, 0, 0, 1, 1, 0, 0, 2, 7)), "hold 2 ids, the passage has 1"),
        (signed(struct.pack("<2sBBHHIIiiH", b"BT", 1, 0, 0, 1, 1, 0, -5, 1, 7)), "starts at token -5"),
        (signed(struct.pack("<2sBBHHIIi", b"BT", 1, 5, 0, 1, 1, 0, -7)), "token id -7"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(RecordError, match=message):
        unpack(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": EXAMPLE.ids.astype(np.int64)}, r"`ids` of the passage is int64 \(4,\), int32 \(any\) is expected"),
        ({"ids": [1, 2, 3, 4]}, "`ids` of the passage is list"),
        ({"ids": np.array([1, 2, 3, -4], np.int32)}, "token id -4"),
        ({"ids": np.zeros((2, 2), np.int32)}, "`ids`"),
        ({"windows": np.array([0, 4], np.int32)}, r"`windows` of the passage is int32 \(2,\), int32 \(any, 2\)"),
        ({"windows": np.array([[0, 3]], np.int32)}, "hold 3 ids, the passage has 4"),
        ({"windows": np.array([[-1, 4]], np.int32)}, "starts at token -1"),
        ({"windows": np.array([[0, 4], [4, 0]], np.int32)}, "shortest has 0 ids"),
        ({"windows": np.zeros((0, 2), np.int32)}, "hold 0 ids, the passage has 4"),
        ({"kept": np.ones(4, np.uint8)}, "`kept`"),
        ({"kept": np.ones(3, np.bool_)}, "`kept`"),
        ({"kept": np.ones(4, np.bool_)}, r"`codes` of the passage is uint8 \(2, 2\), uint8 \(4, any\) is expected"),
        ({"codes": EXAMPLE.codes.astype(np.int8)}, "`codes`"),
        ({"codes": np.zeros((2, 65_536), np.uint8)}, "codes of 65536 bytes, a record holds codes of 65535"),
        ({"scales": np.zeros(3, np.uint8)}, "`scales`"),
        (
            {
                "ids": np.zeros(65_536, np.int32),
                "windows": np.tile(np.array([[0, 1]], np.int32), (65_536, 1)),
                "kept": np.zeros(65_536, np.bool_),
                "codes": np.zeros((0, 2), np.uint8),
            },
            "65536 windows, a record holds 65535. Split the document",
        ),
    ],
)
def test_what_cannot_be_packed(fields, message):
    with pytest.raises(RecordError, match=message):
        pack(changed(EXAMPLE, **fields))


HALF = Layout(width=2, scales=False, coded_share=0.5, merged_share=0.0)


@pytest.mark.parametrize(
    ("fields", "layout", "message"),
    [
        ({}, {"width": 3}, "has codes of 2 bytes, the store's settings give codes of 3"),
        ({}, {"scales": True}, "has no scales, the model stores them"),
        ({"scales": np.zeros(4, np.uint8)}, {}, "has scales, the model stores none"),
        ({"gone": np.array([False, True, False, False])}, {}, "merged into others, the store's merged_share is 0"),
        ({"gone": np.zeros(4, np.bool_)}, {"merged_share": 0.5}, "has 0 of 4 tokens merged into others"),
        (
            {"gone": np.array([False, True, False, True])},
            {"merged_share": 0.25, "coded_share": 1.0},
            "has 2 of 4 tokens merged into others and codes for 2; merged_share 0.25 and coded_share 1.0 do not",
        ),
        (
            {"gone": np.array([False, True, False, True])},
            {"merged_share": 0.5},
            "has 2 of 4 tokens merged into others and codes for 2; merged_share 0.5 and coded_share 0.5 do not",
        ),
        (
            {"kept": np.ones(4, np.bool_), "codes": np.zeros((4, 2), np.uint8)},
            {},
            "has codes for 4 of 4 tokens, the coded_share is 0.5",
        ),
    ],
)
@pytest.mark.parametrize("keep_ids", [False, True])
def test_another_layout_is_refused(fields, layout, message, keep_ids):
    """A right checksum is not all: anybody can compute it."""
    data, wanted = pack(changed(EXAMPLE, **fields), keep_ids=keep_ids), replace(HALF, **layout)
    assert_same(unpack(data, tokens_of(EXAMPLE)), changed(EXAMPLE, **fields))
    with pytest.raises(RecordError, match=message):
        unpack(data, tokens_of(EXAMPLE), wanted)


def test_a_record_of_the_layout_is_read():
    assert_same(unpack(pack(EXAMPLE), tokens_of(EXAMPLE), HALF), EXAMPLE)
    fewer = changed(EXAMPLE, gone=np.array([False, True, False, False]))
    assert_same(unpack(pack(fewer), tokens_of(EXAMPLE), replace(HALF, merged_share=0.25)), fewer)


def test_a_megabyte_of_text():
    n = 300_000
    lengths = np.diff(np.append(np.arange(0, n, 256), n)).astype(np.int32)
    windows = np.stack([np.arange(0, n, 256, dtype=np.int32), lengths], axis=1)
    codes = np.random.default_rng(0).integers(0, 256, (n, 16), np.uint8)
    passage = Passage(np.arange(n, dtype=np.int32), windows, np.ones(n, np.bool_), codes)
    assert_same(unpack(pack(passage)), passage)


def test_keys_name_texts():
    assert passage_key("") == hashlib.blake2b(b"", digest_size=16).digest()
    texts = ["", " ", "a", "A", "ä", "a\u0308", "東京", "\ud800", "x" * 1_000_000]
    keys = {passage_key(text) for text in texts}
    assert len(keys) == len(texts)
    assert {len(key) for key in keys} == {16}


def test_the_examples_of_the_document():
    whole, implied = (
        bytes.fromhex("".join(line.partition("#")[0] for line in block.splitlines()))
        for block in re.findall(r"```hex\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    )
    assert whole == pack(EXAMPLE)
    assert implied == pack(EXAMPLE, keep_ids=False)
    assert_same(unpack(whole), EXAMPLE)
    assert_same(unpack(implied, tokens_of(EXAMPLE)), EXAMPLE)
