# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Records that were damaged at random, and records that somebody made up whose checksum is right.

`FUZZ=50 python -m pytest tests/test_record_fuzz.py` tries 100,000 of the first and 10,000 of the second kind,
`FUZZ_SEED=1` others.
"""

import logging
import os
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from btr_haystack import SplitReader
from btr_haystack.errors import RecordError
from btr_haystack.record import pack, passage_key, unpack
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader
from tests.conftest import passage

SIZE, SEED = int(os.environ.get("FUZZ", "1")), int(os.environ.get("FUZZ_SEED", "0"))
DAMAGED, CRAFTED = 200 * SIZE, 20 * SIZE  # of each of the settings below, with and without token ids
SETTINGS = {  # family and other settings of the model; those of the reader
    "one bit a byte": ({"family": "bert", "bits": 16}, {"bits": 1}),
    "half of the tokens": ({"family": "roberta", "bits": 24}, {"coded_share": 0.5}),
    "no token": ({"family": "bert", "bits": 16}, {"coded_share": 0.0}),
    "merged": ({"family": "bert", "bits": 16}, {"coded_share": 0.75, "merged_share": 0.3}),
    "scales": ({"family": "t5", "bits": 16, "scale": "stored"}, {"coded_share": 0.75}),
}
TEXTS = ["Oslo.", passage(3), " ".join(passage(number) for number in range(6)), ""]  # none to many windows
HEADER = struct.Struct("<2sBBHHII")
WIDE_IDS, WITH_SCALES, ONE_WINDOW, NO_IDS, GONE = 1, 2, 4, 8, 16


def seeded(name):
    return random.Random(f"{SEED} {name}")  # noqa: S311


def signed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def damaged(rng, record):
    """A record with bits turned, bytes lost, come in or gone twice; its checksum made right half of the time."""
    data = bytearray(record)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(20 if rng.random() < 0.3 else len(data) + 1)
        some = rng.randint(1, 8)
        match rng.randrange(6):
            case 0 | 1:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = rng.randbytes(some)
            case 4:
                data[at : at + some] = rng.randbytes(some)
            case _:
                data[at:at] = data[at : at + some]
    return signed(bytes(data[:-4])) if rng.random() < 0.5 else bytes(data)


def other_number(rng, right, most):
    """The right number half of the time, else one near it or any other."""
    near = max(0, right + rng.choice([-1, 1, 8]))
    return min(most, rng.choice([right, right, right, near, 0, rng.randrange(100), rng.randrange(most), most]))


def flags_of(rng, n, marked):
    """A mask of n tokens in which so many are marked."""
    places = np.zeros(n, np.bool_)
    places[rng.sample(range(n), min(n, marked))] = True
    return np.packbits(places, bitorder="little").tobytes()


def token_bytes(rng, flags, tokens, n, windows):
    """Windows and ids as the flags say: those of the text, or others."""
    if flags & NO_IDS:
        whole = zlib.crc32(tokens.windows.astype("<i4").tobytes(), zlib.crc32(tokens.ids.astype("<i4").tobytes()))
        return struct.pack("<I", rng.choice([whole, whole, whole ^ 1]))
    dtype = "<i4" if flags & WIDE_IDS else "<u2"
    ids = np.resize(tokens.ids, n).astype(dtype)
    places = np.resize(tokens.windows if len(tokens.windows) else np.array([[0, n]]), (windows, 2)).astype("<i4")
    if n and rng.random() < 0.3:
        ids[rng.randrange(n)] = np.array(rng.choice([0, 1, 40_000, 2**31 - 1, -1])).astype(dtype)
    if windows and rng.random() < 0.3:
        places[rng.randrange(windows), rng.randrange(2)] = rng.choice([0, 1, -1, n, 10**6, 2**31 - 1])
    return (b"" if flags & ONE_WINDOW else places.tobytes()) + ids.tobytes()


def crafted(rng, record, tokens):
    """A record whose parts have the lengths that its header says, as far as they are short, and a right checksum."""
    _, _, flags, width, windows, n, coded = HEADER.unpack_from(record)
    if rng.random() < 0.5:
        flags ^= rng.choice([0, WIDE_IDS, WITH_SCALES, ONE_WINDOW, NO_IDS, GONE, rng.randrange(32), rng.randrange(256)])
    if rng.random() < 0.5:
        width, windows = other_number(rng, width, 2**16 - 1), other_number(rng, windows, 2**16 - 1)
        n = other_number(rng, n, 2**32 - 1)
        coded = min(n, other_number(rng, coded, 2**32 - 1))
    if rng.random() < 0.3:
        coded = rng.randint(0, min(n, 2**20))
    body = HEADER.pack(b"BT", 1, flags, width, windows, n, coded)
    if max(n, windows, coded * width) > 2**13:
        return signed(body + rng.randbytes(rng.randrange(200)))
    body += token_bytes(rng, flags, tokens, n, windows)
    if 0 < coded < n:
        body += flags_of(rng, n, rng.choice([coded, coded, coded, rng.randint(0, n)]))
    if flags & GONE:
        body += flags_of(rng, n, rng.choice([0, 1, n // 4, n - coded, n]))
    body += rng.randbytes(coded * width)
    return signed(body + (rng.randbytes(n) if flags & WITH_SCALES else b""))


def assert_fits(found, tokens, reader):
    """What is read is what the text, the model and the settings give, up to the values of bits."""
    n, windows = len(tokens.ids), tokens.windows
    assert (found.ids.dtype, found.windows.dtype, found.kept.dtype) == (np.int32, np.int32, np.bool_)
    assert np.array_equal(found.ids, tokens.ids)
    assert np.array_equal(found.windows, windows)
    assert found.kept.shape == (n,)
    assert found.codes.shape == (np.count_nonzero(found.kept), -(-reader.bits // 8))
    assert len(found.codes) <= n * reader.coded_share + len(windows) + 1e-3
    stored = reader.model.config.scale == "stored" and reader.model.config.encoder.model_type == "t5"
    assert found.scales is None if not stored else found.scales.shape == (n,)
    if found.gone is not None:
        assert reader.merged_share > 0
        assert found.gone.any()
        assert not (found.gone & found.kept).any()
        for last, length in zip(np.cumsum(windows[:, 1]), windows[:, 1], strict=True):
            assert np.count_nonzero(found.gone[last - length : last]) <= length * reader.merged_share + 1e-3


def tried(data, tokens, layout):
    """The passage that is read, None where the record is refused; what that takes is bounded by record and text."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        found = unpack(data, tokens, layout)
    except RecordError as error:
        found = None
        assert len(str(error)) < 300
        assert str(error).isprintable()
    assert tracemalloc.get_traced_memory()[1] - before < 20_000 + 2 * len(data) + 40 * len(tokens.ids)
    return found


@pytest.fixture(params=SETTINGS)
def reader(request, split_reader):
    model, settings = SETTINGS[request.param]
    return SplitReader.from_pretrained(split_reader(k=1, **model), max_seq_length=64, stride=8, **settings)


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture(params=[False, True], ids=["ids of the text", "ids in the record"])
def keep_ids(request):
    return request.param


@pytest.fixture
def sound(reader, keep_ids):
    """Tokens and record of each text."""
    passages = zip(reader.tokens(TEXTS), reader.encode(TEXTS), strict=True)
    return [(tokens, pack(made, keep_ids=keep_ids)) for tokens, made in passages]


def test_what_was_written_is_read(reader, sound):
    assert sorted(len(tokens.windows) > 1 for tokens, _ in sound) == [False, False, True, True]
    for tokens, record in sound:
        assert_fits(unpack(record, tokens, reader.layout), tokens, reader)


@pytest.mark.parametrize(("make", "count"), [("damaged", DAMAGED), ("crafted", CRAFTED)])
def test_a_record_is_read_as_its_text_gives_it_or_refused(reader, sound, traced, make, count):
    rng = seeded(make)
    read = refused = 0
    for number in range(count):
        tokens, record = sound[number % len(sound)]
        data = damaged(rng, record) if make == "damaged" else crafted(rng, record, tokens)
        found = tried(data, tokens, reader.layout)
        if found is None:
            refused += 1
        else:
            read += 1
            assert_fits(found, tokens, reader)
            assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    assert refused > read
    assert read > 0 or count < DAMAGED


def test_readers_and_stores_get_along_with_any_record(split_reader, tmp_path, keep_ids, documents, caplog):
    """Those that are refused are told of in one line, encoded anew, written back, and then read."""
    folder, rng = split_reader(k=1, bits=24), seeded("stores")
    store, short = (
        BinaryTokenStore(folder, f"sqlite:///{tmp_path}/{b}.db", bits=b, keep_ids=keep_ids, progress_bar=False)
        for b in (24, 11)
    )
    store.write_documents(documents)
    held, maker = store.open(store.reader.fingerprint), store.reader
    component = BTRReader(token_store=store, top_k=3)
    texts = [document.content for document in documents]
    keys, tokens = [passage_key(text) for text in texts], maker.tokens(texts)
    right = held.get_many(keys)
    for _ in range(4 * SIZE):
        made = [crafted(rng, record, one) for record, one in zip(right, tokens, strict=True)]
        held.put_many(zip(keys, made, strict=True))
        told = store.report()
        assert told.passages + told.damaged == len(documents)
        short.copy_from(store)
        refused = [tried(data, one, maker.layout) is None for data, one in zip(made, tokens, strict=True)]
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            out = component.run("What is the capital of Norway?", documents)
        assert out["cache"]["misses"] == sum(refused)
        assert len([line for line in caplog.text.splitlines() if "count" in line]) == any(refused)
        assert component.run("What is the capital of Norway?", documents)["cache"]["misses"] == 0
        assert held.get_many(keys) == [old if bad else new for old, new, bad in zip(right, made, refused, strict=True)]
        assert short.write_documents(documents) <= len(documents)
        short.delete_documents(documents)
