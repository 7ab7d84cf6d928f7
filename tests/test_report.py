# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from btr_haystack.errors import StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.passage import Passage
from btr_haystack.record import pack, passage_key
from btr_haystack.report import report
from btr_haystack.stores import open_store

MODEL = Fingerprint("ab" * 16, {"model": "tiny", "k": 6, "bits": 128, "width": 512})


def passages(count, share=1.0, low=60, high=300):
    """Passages of `low` to `high` tokens, of which a share has codes."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        n = int(np.clip(rng.normal(150, 50), low, high))
        kept = rng.random(n) < share
        codes = rng.integers(0, 256, (int(kept.sum()), 16), np.uint8)
        yield Passage(rng.integers(0, 32_100, n, np.int32), np.array([[0, n]], np.int32), kept, codes)


def items(some):
    return ((passage_key(str(number)), pack(passage)) for number, passage in enumerate(some))


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"


def test_every_part_is_counted(url):
    some = list(passages(250, share=0.5))
    scales = np.zeros(3, np.uint8)
    wide = np.array([0, 1, 100_000], np.int32)
    windows = np.array([[0, 2], [1, 1]], np.int32)
    some.append(Passage(wide, windows, np.ones(3, np.bool_), np.zeros((3, 16), np.uint8), scales))
    with open_store(url, MODEL) as store:
        store.put_many(items(some))
        found = report(store)
        assert found.file_bytes == store.file_bytes()
    ordinary = some[:-1]
    assert found.passages == 251
    assert found.tokens == sum(len(passage.ids) for passage in some)
    assert found.tokens_with_codes == sum(int(passage.kept.sum()) for passage in some)
    assert found.id_bytes == sum(2 * len(passage.ids) for passage in ordinary) + 4 * 3
    assert found.mask_bytes == sum(-(-len(passage.ids) // 8) for passage in ordinary)
    assert found.code_bytes == 16 * found.tokens_with_codes
    assert found.scale_bytes == 3
    assert found.record_bytes == sum(len(pack(passage)) for passage in some)
    counted = found.id_bytes + found.mask_bytes + found.code_bytes + found.scale_bytes
    assert found.record_bytes == counted + 251 * 20 + 2 * 8
    assert found.file_bytes >= found.record_bytes + 251 * 16
    assert found.bytes_per_token == found.file_bytes / found.tokens
    assert (found.float32_bytes_per_token, found.float16_bytes_per_token) == (2048, 1024)


def test_an_empty_store(url):
    with open_store(url, MODEL) as store:
        found = report(store)
    assert (found.passages, found.tokens, found.bytes_per_token) == (0, 0, 0.0)
    assert "0 passages, 0 tokens" in str(found)


def test_a_line_for_people():
    with open_store("memory://", MODEL) as store:
        store.put_many(items(passages(10)))
        line = str(report(store))
    assert line.startswith("10 passages, ")
    assert line.endswith("bytes a token, everything counted (float32 states: 2,048, float16: 1,024)")


@pytest.mark.parametrize(("count", "share", "limit"), [(1000, 1.0, 19.6), (1000, 0.5, 11.7)])
def test_the_bytes_a_token_that_the_documentation_gives(tmp_path, count, share, limit):
    url = f"sqlite:///{tmp_path}/store.db"
    with open_store(url, MODEL) as store:
        store.put_many(items(passages(count, share)))
    with open_store(url, None) as store:
        assert report(store).bytes_per_token < limit


@pytest.mark.parametrize("description", [{}, {"width": "512"}])
def test_a_fingerprint_without_a_width(description):
    with (
        open_store("memory://", Fingerprint("ab" * 16, description)) as store,
        pytest.raises(StoreError, match="width"),
    ):
        report(store)


def test_a_damaged_record(url):
    with open_store(url, MODEL) as store:
        store.put_many([(passage_key("a"), b"no record")])
        told = report(store)
    assert (told.passages, told.damaged, told.tokens) == (0, 1, 0)
    assert str(told).startswith("0 passages and 1 damaged, 0 tokens")


def test_a_record_with_codes_of_other_bits(url):
    [sound] = passages(1)
    others = [Passage(sound.ids, sound.windows, sound.kept, sound.codes[:, :width]) for width in (15, 1, 0)]
    with open_store(url, MODEL) as store:
        store.put_many(items([sound, *others]))
        told = report(store)
    assert (told.passages, told.damaged, told.tokens) == (1, 3, len(sound.ids))
