# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import copy
import hashlib
import multiprocessing
import os
import resource
import signal
import sqlite3
import tempfile
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from btr_haystack.errors import BTRError, FingerprintError, StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.passage import Passage
from btr_haystack.record import check, pack
from btr_haystack.stores import MemoryStore, SQLiteStore, open_store

MODEL = Fingerprint("ab" * 16, {"model": "tiny", "k": 2, "bits": 16, "width": 32})
OTHER = Fingerprint("cd" * 16, {"model": "other", "k": 3, "bits": 16, "width": 32})
NOBODY = 65534

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def key(name):
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def item(name):
    return key(name), f"record of {name}".encode()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(params=["memory", "sqlite"])
def store(request, url):
    with open_store("memory://" if request.param == "memory" else url, MODEL) as opened:
        yield opened


class Child:
    """A forked process that runs a function; `join` fails the test if the function failed."""

    def __init__(self, work):
        ours, its = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours)
            try:
                work()
            except BaseException:
                os.write(its, traceback.format_exc().encode())
            os._exit(0)
        os.close(its)
        self.complaints = os.fdopen(ours, "rb")

    def join(self):
        with self.complaints:
            complaint = self.complaints.read().decode()
        os.waitpid(self.pid, 0)
        assert complaint == ""

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.complaints.close()


# every back end


def test_what_was_put_is_got(store):
    store.put_many(map(item, "abc"))
    a, c = b"record of a", b"record of c"
    assert store.get_many([key("c"), key("x"), key("a"), key("c")]) == [c, None, a, c]
    assert len(store) == 3
    assert sorted(store.keys()) == sorted(map(key, "abc"))
    assert store.fingerprint == MODEL


def test_nothing_to_do(store):
    store.put_many([])
    assert store.get_many([]) == []
    assert store.delete_many([]) == 0
    assert len(store) == 0
    assert list(store.keys()) == []
    store.compact()


def test_later_records_replace_earlier_ones(store):
    store.put_many([(key("a"), b"1"), (key("b"), b"2"), (key("a"), b"3")])
    store.put_many([(key("b"), b"")])
    assert store.get_many([key("a"), key("b")]) == [b"3", b""]
    assert len(store) == 2


def test_delete(store):
    store.put_many(map(item, "abc"))
    assert store.delete_many([key("a"), key("x"), key("c"), key("a")]) == 2
    assert store.delete_many([key("a")]) == 0
    assert store.get_many([*map(key, "abc")]) == [None, b"record of b", None]
    assert len(store) == 1


def test_keep_only(store):
    store.put_many(map(item, "abcd"))
    assert store.keep_only(iter([key("a"), key("x"), key("c"), key("a")])) == 2
    assert sorted(store.keys()) == sorted(map(key, "ac"))
    assert store.get_many([key("a"), key("x")]) == [b"record of a", None]
    assert store.keep_only([*map(key, "ac")]) == 0
    assert store.keep_only([]) == 2
    assert store.keep_only([key("a")]) == len(store) == 0


def test_keep_only_of_many(store):
    keys = [*map(key, range(40_000))]
    store.put_many((one, b"") for one in keys)
    assert store.keep_only(iter(keys[1_000:])) == 1_000
    assert len(store) == 39_000
    assert store.keep_only(iter(keys[:2_000])) == 38_000
    assert sorted(store.keys()) == sorted(keys[1_000:2_000])


def test_a_failing_iterable_deletes_nothing(store):
    store.put_many(map(item, "abc"))

    def broken():
        yield key("a")
        msg = "the corpus broke"
        raise OSError(msg)

    for delete in (store.delete_many, store.keep_only):
        with pytest.raises(OSError, match="the corpus broke"):
            delete(broken())
        assert len(store) == 3


def test_the_store_is_used_while_keys_to_keep_are_taken(store):
    store.put_many(map(item, "abc"))

    def using():
        store.put_many([item("new")])
        yield key("a")
        assert store.delete_many([key("b")]) == 1
        assert store.get_many([key("c")]) == [b"record of c"]
        assert len(store) == 3

    assert store.keep_only(using()) == 1  # c: what is put meanwhile stays
    assert sorted(store.keys()) == sorted([key("a"), key("new")])


@pytest.mark.parametrize("neighbour", ["memory", "sqlite"])
def test_deleting_stays_inside_one_store(store, tmp_path, neighbour):
    """Two models have the same keys."""
    place = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/neighbour.db"}[neighbour]
    with open_store(place, OTHER) as other:
        for one in (store, other):
            one.put_many(map(item, "abc"))
        assert store.delete_many([key("a")]) == 1
        assert store.keep_only([key("b")]) == 1
        assert sorted(store.keys()) == [key("b")]
        assert sorted(other.keys()) == sorted(map(key, "abc"))


def test_more_keys_than_sqlite_takes_variables(store):
    names = range(40_000)
    keys, records = zip(*map(item, names), strict=True)
    store.put_many(map(item, names))
    assert store.get_many(keys) == [*records]
    assert sorted(store.keys()) == sorted(keys)
    assert store.delete_many(keys) == len(names)


def test_big_records(store):
    record = os.urandom(8_000_000)
    store.put_many([(key("big"), record)])
    assert store.get_many([key("big")]) == [record]


def test_the_store_may_change_while_its_keys_are_gone_over(store):
    store.put_many(map(item, range(100)))
    for name in store.keys():
        assert store.delete_many([name]) == 1
    assert len(store) == 0


def test_a_failing_iterable_changes_nothing(store):
    store.put_many(map(item, "ab"))

    def broken():
        yield key("a"), b"new"
        yield key("c"), b"new"
        msg = "the encoder broke"
        raise OSError(msg)

    with pytest.raises(OSError, match="the encoder broke"):
        store.put_many(broken())
    assert store.get_many([*map(key, "abc")]) == [b"record of a", b"record of b", None]
    store.put_many([item("c")])
    assert len(store) == 3


def test_who_reads_while_putting_sees_what_is_committed(store):
    store.put_many([item("a")])
    seen = []

    def reading():
        for name in "bc":
            yield item(name)
            seen.append((store.get_many([key("a"), key("b")]), len(store), list(store.keys())))

    store.put_many(reading())
    assert seen == [([b"record of a", None], 1, [key("a")])] * 2
    assert len(store) == 3


@pytest.mark.parametrize("bad", ["a" * 16, b"short", b"x" * 17, b"", None, 7, bytearray(16), memoryview(bytes(16))])
def test_bad_keys(store, bad):
    store.put_many([item("a")])
    with pytest.raises(StoreError, match="16 bytes"):
        store.get_many([key("a"), bad])
    with pytest.raises(StoreError, match="16 bytes"):
        store.delete_many([key("a"), bad])
    with pytest.raises(StoreError, match="16 bytes"):
        store.keep_only([bad])
    with pytest.raises(StoreError, match="16 bytes"):
        store.put_many([item("b"), (bad, b"record")])
    assert list(store.keys()) == [key("a")]


@pytest.mark.parametrize(
    "bad", [(key("b"), "text"), (key("b"), None), (key("b"), bytearray(3)), (key("b"),), key("b"), None, "x" * 500]
)
def test_bad_items(store, bad):
    with pytest.raises(StoreError, match="a key of 16 bytes and a record of bytes are expected") as caught:
        store.put_many([item("a"), bad])
    assert len(str(caught.value)) < 200
    assert len(store) == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get_many([key("a")]),
        lambda store: store.put_many([item("a")]),
        lambda store: store.delete_many([key("a")]),
        lambda store: store.keep_only([key("a")]),
        lambda store: list(store.keys()),
        len,
        lambda store: store.compact(),
        lambda store: store.file_bytes(),
    ],
)
def test_use_after_close(store, use):
    store.put_many([item("a")])
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        use(store)


def test_sizes(store):
    before = store.file_bytes()
    store.put_many((key(name), bytes(3000)) for name in range(1000))
    full = store.file_bytes()
    assert 3_000_000 < full - before < 3_300_000
    store.delete_many([key(name) for name in range(900)])
    store.compact()
    assert store.file_bytes() < 0.15 * full
    assert len(store) == 100


def test_threads(store):
    errors = []

    def work(thread):
        try:
            for turn in range(20):
                names = [f"{thread} {turn} {i}" for i in range(10)]
                keys, records = zip(*map(item, names), strict=True)
                store.put_many(map(item, names))
                assert store.get_many(keys) == [*records]
                assert store.delete_many(keys[:1]) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store) == 6 * 20 * 9


@needs_fork
def test_a_fork_keeps_its_stores(store):
    store.put_many([item("a")])
    assert store.get_many([key("a")]) == [b"record of a"]

    def work():
        assert store.get_many([key("a")]) == [b"record of a"]
        store.put_many([item("child")])
        assert len(store) == 2
        store.close()

    child = Child(work)
    assert store.get_many([key("a")]) == [b"record of a"]
    child.join()
    store.put_many([item("parent")])
    written_by_both = isinstance(store, SQLiteStore)
    assert len(store) == 2 + written_by_both


# urls and fingerprints


def test_back_ends(url):
    with open_store("memory://", MODEL) as memory, open_store(url, MODEL) as sqlite:
        assert isinstance(memory, MemoryStore)
        assert isinstance(sqlite, SQLiteStore)
        memory.put_many([item("a")])
        assert len(open_store("memory://", MODEL)) == 0


@pytest.mark.parametrize(
    "bad",
    [
        *["", "store.db", "sqlite://", "sqlite:///", "sqlite://store.db", "sqlite:///:memory:", "sqlite:///a\0b"],
        *["memory://x", "redis://host", None, Path("store.db"), b"memory://"],
    ],
)
def test_bad_urls_are_told_the_good_ones(bad):
    with pytest.raises(StoreError, match=r"'sqlite:///passages.db'.*'sqlite:////var/lib/passages.db'.*'memory://'"):
        open_store(bad, MODEL)


@pytest.mark.parametrize("name", ["a b.db", "a#b?c&d=e.db", "%20%2F.db", "größe 東京.db", "'\";--.db", "-"])
def test_odd_names(tmp_path, monkeypatch, name):
    name = os.fsdecode(name.encode())  # as the command line gives it, whatever the locale
    monkeypatch.chdir(tmp_path)
    with open_store(f"sqlite:///{name}", MODEL) as store:
        store.put_many([item("a")])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    monkeypatch.chdir("/")
    with open_store(f"sqlite:///{tmp_path}/{name}", None) as store:
        assert len(store) == 1


def test_a_relative_path_is_resolved_when_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///store.db", MODEL) as store:
        monkeypatch.chdir("/")
        store.put_many([item("a")])
    assert (tmp_path / "store.db").exists()


def test_a_new_store_needs_a_fingerprint(tmp_path, url):
    for place in ("memory://", url):
        with pytest.raises(StoreError, match="the fingerprint of the model"):
            open_store(place, None)
    assert list(tmp_path.iterdir()) == []


def test_reopen(url):
    with open_store(url, MODEL) as store:
        store.put_many(map(item, "ab"))
    for fingerprint in (MODEL, None):
        with open_store(url, fingerprint) as store:
            assert store.fingerprint == MODEL
            assert store.fingerprint.description == MODEL.description
            assert store.get_many([key("a")]) == [b"record of a"]


def test_a_store_of_another_model(url):
    open_store(url, MODEL).close()
    with pytest.raises(FingerprintError) as caught:
        open_store(url, OTHER)
    for part in ("store.db", "tiny (k=2", MODEL.digest, "other (k=3", OTHER.digest, "another url", "delete the file"):
        assert part in str(caught.value)


def test_fingerprints():
    assert Fingerprint.from_json(MODEL.to_json()) == MODEL
    assert Fingerprint(MODEL.digest, {"model": "renamed"}) == MODEL
    assert str(Fingerprint("0" * 32, {})) == f"unnamed model (digest={'0' * 32})"
    for digest in ("", "AB" * 16, "ab" * 15, "ab" * 16 + "\n", None):
        with pytest.raises(StoreError, match="32 hexadecimal digits"):
            Fingerprint(digest, {})
    for text in ("", "[]", "{}", '{"digest": 1, "description": {}}', f'{{"digest": "{"0" * 32}", "description": 7}}'):
        with pytest.raises(StoreError, match="fingerprint"):
            Fingerprint.from_json(text)


# files that are no stores, or damaged ones


def test_no_folder(tmp_path):
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere\. Make it"):
        open_store(f"sqlite:///{tmp_path}/nowhere/store.db", MODEL)


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="is no file"):
        open_store(f"sqlite:///{tmp_path}", MODEL)


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(StoreError, match="unable to open database file"):
        open_store(f"sqlite:///{tmp_path}/{'x' * 300}", MODEL)


def test_an_empty_file_is_no_store(tmp_path, url):
    (tmp_path / "store.db").touch()
    for fingerprint in (MODEL, None):
        with pytest.raises(StoreError, match=r"store\.db is an empty file, and no store\. Delete it"):
            open_store(url, fingerprint)
    (tmp_path / "store.db").unlink()
    with open_store(url, MODEL) as store:
        store.put_many([item("a")])
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (512,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_of_something_else(tmp_path, url):
    text = b"no database at all. " * 100
    (tmp_path / "store.db").write_bytes(text)
    with pytest.raises(StoreError, match=r"It is something else, or its first bytes are damaged"):
        open_store(url, MODEL)
    assert (tmp_path / "store.db").read_bytes() == text


def test_a_database_of_something_else(tmp_path, url):
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("CREATE TABLE meta (name, value)")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreError, match="is an SQLite database, but no store of btr-haystack"):
        open_store(url, MODEL)
    assert (tmp_path / "store.db").read_bytes() == before


def test_a_newer_format(tmp_path, url):
    open_store(url, MODEL).close()
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE name = 'format_version'")
    with pytest.raises(StoreError, match=r"has the store format 2, this btr-haystack knows 1\. Update btr-haystack"):
        open_store(url, MODEL)


def test_a_file_cut_short(tmp_path, url):
    with open_store(url, MODEL) as store:
        store.put_many((key(name), os.urandom(1000)) for name in range(20))
    path = tmp_path / "store.db"
    data = path.read_bytes()
    for size in [2, 50, 99, 100, 101, 511, 512, 513, 1024, 5000, len(data) // 2, len(data) - 512, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(StoreError, match=r"damaged|cut short|something else"):
            open_store(url, MODEL)


def test_flipped_bits_in_the_file_never_give_a_wrong_passage(tmp_path, url):
    rng = np.random.default_rng(0)
    records = {}
    for name, n in enumerate([1, 5, 20, 60, 130] * 2):
        codes = rng.integers(0, 256, (n, 4), np.uint8)
        passage = Passage(rng.integers(0, 9, n, np.int32), np.array([[0, n]], np.int32), np.ones(n, np.bool_), codes)
        records[key(name)] = pack(passage)
    with open_store(url, MODEL) as store:
        store.put_many(records.items())
    path = tmp_path / "store.db"
    data = path.read_bytes()
    for bit in rng.integers(0, 8 * len(data), 120):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            with open_store(url, MODEL) as store:
                for name, record in records.items():
                    (got,) = store.get_many([name])
                    assert got is None or got == record or check(got) is None  # raises RecordError
                store.put_many([item("new")])
                store.compact()
        except BTRError:
            pass
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def test_an_index_that_points_at_another_passage(tmp_path, url):
    with open_store(url, MODEL) as store:
        store.put_many(map(item, "ab"))

    def as_database(statement, *values):
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            return connection.execute(statement, values).fetchall()

    ((index,),) = as_database("SELECT rootpage FROM sqlite_master WHERE type = 'index'")
    ((schema,),) = as_database("SELECT sql FROM sqlite_master WHERE name = 'records'")
    set_schema = "UPDATE sqlite_master SET sql = ? WHERE name = 'records'"
    as_database("DELETE FROM sqlite_master WHERE type = 'index'")
    as_database(set_schema, "CREATE TABLE records (key BLOB, record BLOB)")
    as_database("UPDATE records SET key = CASE key WHEN ?1 THEN ?2 ELSE ?1 END", key("a"), key("b"))
    as_database(set_schema, schema)
    as_database("INSERT INTO sqlite_master VALUES ('index', 'sqlite_autoindex_records_1', 'records', ?, NULL)", index)
    with open_store(url, MODEL) as store:
        assert store.get_many([key("a"), key("b")]) == [None, None]


# permissions and room


@pytest.fixture
def readable_store():
    """The url of a store, in a folder that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        with open_store(url, MODEL) as store:
            store.put_many(map(item, "abc"))
        Path(folder, "store.db").chmod(0o444)
        Path(folder).chmod(0o555)
        yield url
        Path(folder).chmod(0o755)


def without_rights(work):
    """Runs in a child, as somebody whom file permissions stop."""

    def child():
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        work()

    return Child(child)


def assert_only_reading(url):
    with open_store(url, MODEL) as store:
        assert store.get_many([key("a"), key("x")]) == [b"record of a", None]
        assert len(store) == len(list(store.keys())) == 3
        assert store.file_bytes() > 0
        for write in (
            lambda: store.put_many([item("d")]),
            lambda: store.delete_many([key("a")]),
            lambda: store.keep_only(pytest.fail("a key was taken") for _ in "a"),
            store.compact,
        ):
            with pytest.raises(StoreError, match="can only be read"):
                write()
        assert store.get_many([key("a"), key("d")]) == [b"record of a", None]


@needs_fork
def test_a_read_only_file_in_a_read_only_folder(readable_store):
    without_rights(lambda: assert_only_reading(readable_store)).join()


@needs_fork
def test_a_read_only_file_in_a_writable_folder(readable_store):
    Path(readable_store.removeprefix("sqlite:///")).parent.chmod(0o777)
    without_rights(lambda: assert_only_reading(readable_store)).join()


@needs_fork
def test_a_writable_file_in_a_read_only_folder(readable_store):
    Path(readable_store.removeprefix("sqlite:///")).chmod(0o666)
    without_rights(lambda: assert_only_reading(readable_store)).join()


@needs_fork
def test_who_may_only_read_sees_what_others_write(readable_store):
    if os.geteuid() != 0:
        pytest.skip("takes two users")
    turns = [multiprocessing.Event() for _ in range(4)]

    def work():
        with open_store(readable_store, MODEL) as store:
            assert len(store) == 3
            turns[0].set()
            assert turns[1].wait(10)
            assert len(store) == 4
            turns[2].set()
            assert turns[3].wait(10)
            assert len(store) == 5

    child = without_rights(work)
    assert turns[0].wait(10)
    with open_store(readable_store, MODEL) as store:
        store.put_many([item("d")])
        turns[1].set()
        turns[2].wait(1)
        store.put_many([item("e")])
    turns[3].set()
    child.join()


@needs_fork
def test_a_new_store_in_a_read_only_folder(readable_store):
    def work():
        with pytest.raises(StoreError, match="unable to open"):
            open_store(readable_store.replace("store.db", "new.db"), MODEL)

    without_rights(work).join()


@needs_fork
def test_a_full_disk(url):
    with open_store(url, MODEL) as store:
        store.put_many(map(item, "abc"))

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        with open_store(url, MODEL) as store:
            store.put_many([item("d")])
            with pytest.raises(StoreError, match=r"full\. What was committed stays"):
                store.put_many((key(name), bytes(1000)) for name in range(1000))
            assert store.get_many([*map(key, "abd")]) == [b"record of a", b"record of b", b"record of d"]
            store.put_many([item("e")])

    Child(work).join()
    with open_store(url, MODEL) as store:
        assert sorted(store.keys()) == sorted(map(key, "abcde"))


@needs_fork
def test_writing_takes_no_more_memory_for_more_records(url):
    def work():
        with open_store(url, MODEL) as store:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            store.put_many((key(name), bytes(50_000)) for name in range(2000))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 20_000  # KB, of 100,000 written

    Child(work).join()


# many processes


@needs_fork
def test_two_writers(url):
    def work(writer):
        with open_store(url, MODEL) as store:
            for turn in range(30):
                store.put_many(item(f"{writer} {turn} {i}") for i in range(10))

    children = [Child(lambda writer=writer: work(writer)) for writer in range(2)]
    for child in children:
        child.join()
    with open_store(url, MODEL) as store:
        assert len(store) == 600


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_not_written_to(tmp_path, url, replaced):
    with open_store(url, MODEL) as store:
        store.put_many([item(1)])
        (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
        if replaced:
            with open_store(url, MODEL) as other:
                other.put_many([item(2)])
        for use in (lambda: store.put_many([item(3)]), lambda: store.get_many([key(1)]), lambda: len(store)):
            with pytest.raises(StoreError, match=r"store\.db was deleted or replaced while it was open"):
                use()
    with open_store(url, MODEL) as again:
        assert [one is not None for one in again.get_many([key(1), key(2), key(3)])] == [False, replaced, False]


def test_a_copy_is_another_store_of_the_same_file(store):
    store.put_many([item(1)])
    with copy.deepcopy(store) as other:
        assert other.get_many([key(1)]) == [item(1)[1]]
    closed = copy.deepcopy(other)
    assert other.fingerprint == store.fingerprint
    if isinstance(store, SQLiteStore):
        with pytest.raises(StoreError, match="is closed"):
            len(closed)
    assert len(store) == 1


def test_a_copy_makes_no_file(tmp_path, url):
    with open_store(url, MODEL) as store:
        (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
        with pytest.raises(StoreError, match=r"store\.db was deleted or replaced while it was open"):
            copy.deepcopy(store)
    with pytest.raises(StoreError, match="is closed"):
        len(copy.deepcopy(store))
    assert not (tmp_path / "store.db").exists()


def test_meta_that_is_no_text(tmp_path, url):
    open_store(url, MODEL).close()
    file = tmp_path / "store.db"
    content = file.read_bytes()
    assert content.count(b'"digest"') == 1
    file.write_bytes(content.replace(b'"digest"', b'"\xff\xff\xff\xff\xff\xff"'))
    with pytest.raises(StoreError, match=r"The file is damaged\. Restore a copy of it") as caught:
        open_store(url, MODEL)
    assert "Could not" not in str(caught.value)  # SQLite quotes the damage


@needs_fork
def test_many_make_the_same_store_at_once(tmp_path):
    def work(turn):
        with open_store(f"sqlite:///{tmp_path}/{turn}.db", MODEL) as store:
            store.put_many([item(os.getpid())])

    for turn in range(10):
        children = [Child(lambda turn=turn: work(turn)) for _ in range(6)]
        for child in children:
            child.join()
        with open_store(f"sqlite:///{tmp_path}/{turn}.db", MODEL) as store:
            assert len(store) == 6


@needs_fork
def test_a_reader_beside_a_writer_sees_whole_transactions(url):
    with open_store(url, MODEL) as store:
        store.put_many((key(name), b"0") for name in range(10))

        def work():
            with open_store(url, MODEL) as writer:
                for turn in range(1, 200):
                    writer.put_many((key(name), b"%d" % turn) for name in range(10))

        child = Child(work)
        seen = set()
        while not seen or max(seen) < 199:
            records = set(store.get_many([key(name) for name in range(10)]))
            assert len(records) == 1
            seen.add(int(records.pop()))
        child.join()
    assert len(seen) > 1


@needs_fork
def test_a_reader_and_a_writer_beside_one_who_deletes(url):
    """The reader sees all records or those that stay; what the writer puts stays."""
    with open_store(url, MODEL) as store:
        store.put_many((key(name), b"0") for name in range(5_000))
        started, done = multiprocessing.Event(), multiprocessing.Event()

        def reading():
            with open_store(url, MODEL) as reader:
                seen = set()
                while len(seen) < 2:
                    seen.add(sum(record is not None for record in reader.get_many([*map(key, range(5_000))])))
                    started.set()
                assert seen == {5_000, 10}

        def writing():
            with open_store(url, MODEL) as writer:
                turn = 0
                while not done.is_set():
                    writer.put_many([item(f"new {turn}")])
                    turn += 1
                assert None not in writer.get_many([key(f"new {number}") for number in range(turn)])

        def kept():
            assert started.wait(30)
            children.append(Child(writing))
            yield from map(key, range(10))

        children = [Child(reading)]
        assert store.keep_only(kept()) == 4_990
        done.set()
        for child in children:
            child.join()


@needs_fork
def test_kill_9_loses_nothing_that_was_committed(url):
    size = 20
    rng = np.random.default_rng(0)
    committed = set()
    for _ in range(8):
        ours, its = os.pipe()

        def work(first=max(committed, default=-1) + 2, acknowledge=its):
            with open_store(url, MODEL) as store:
                for batch in range(first, 1_000_000):
                    store.put_many((key(f"{batch} {i}"), b"%d %d" % (batch, i) * 200) for i in range(size))
                    os.write(acknowledge, b"%d\n" % batch)
                    if batch % 10 == 9:
                        store.compact()

        child = Child(work)
        os.close(its)
        with os.fdopen(ours, "rb") as acknowledged:
            committed.add(int(acknowledged.readline()))
            time.sleep(rng.uniform(0, 0.1))
            child.kill()
            committed.update(map(int, acknowledged.read().splitlines()))
        with open_store(url, MODEL) as store:
            for batch in range(max(committed) + 2):
                records = store.get_many([key(f"{batch} {i}") for i in range(size)])
                whole = [b"%d %d" % (batch, i) * 200 for i in range(size)]
                assert records == whole or (batch not in committed and records == [None] * size)
    assert len(committed) > 8


@needs_fork
def test_kill_9_while_a_store_is_made(tmp_path):
    rng = np.random.default_rng(0)
    for turn in range(20):
        url = f"sqlite:///{tmp_path}/{turn}.db"
        child = Child(lambda url=url: open_store(url, MODEL))
        time.sleep(rng.uniform(0, 0.01))
        child.kill()
        with open_store(url, MODEL) as store:
            store.put_many([item("a")])
            assert len(store) == 1


@needs_fork
def test_a_child_outlives_its_parents_connections(url):
    """The parent closes last, as it believes, and must not take the child's log away."""
    store = open_store(url, MODEL)
    store.put_many([item("a")])
    wrote, closed = multiprocessing.Event(), multiprocessing.Event()

    def work():
        store.put_many([item("b")])
        wrote.set()
        assert closed.wait(10)
        store.put_many([item("c")])

    child = Child(work)
    assert wrote.wait(10)
    assert len(store) == 2
    store.close()
    closed.set()
    child.join()
    with open_store(url, MODEL) as again:
        assert len(again) == 3


@needs_fork
def test_a_fork_in_the_middle_of_writing(url):
    def in_child():
        with pytest.raises(StoreError, match="was being written when this process was forked"):
            store.put_many([item("child")])
        store.close()

    def forking():
        yield item("a")
        Child(in_child).join()
        yield item("b")

    with open_store(url, MODEL) as store:
        store.put_many(forking())
        assert len(store) == 2


@needs_fork
def test_forks_from_several_threads(url):
    with open_store(url, MODEL) as store:
        store.put_many([item("a")])
        errors = []

        def work(thread):
            try:
                for turn in range(5):
                    assert store.get_many([key("a")]) == [b"record of a"]
                    Child(lambda: store.get_many([key("a")])).join()
                    store.put_many([item(f"{thread} {turn}")])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(store) == 21
