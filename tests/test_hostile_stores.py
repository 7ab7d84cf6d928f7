# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Store files that a stranger made or changed, what lies beside them, and what a store tells."""
# ruff: noqa: S311, S608 - seeded on purpose; statements of our own

import errno
import multiprocessing
import os
import random
import resource
import sqlite3
import stat
import struct
from contextlib import closing
from pathlib import Path

import pytest

from btr_haystack.display import shown
from btr_haystack.errors import BTRError, FingerprintError, StoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.stores import making, open_store

MODEL = Fingerprint("ab" * 16, {"model": "tiny", "k": 2, "bits": 16, "width": 32})
META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
RECORDS = "CREATE TABLE records (key BLOB PRIMARY KEY NOT NULL, record BLOB NOT NULL)"
KEY = b"0123456789abcdef"
FUZZED = int(os.environ.get("BTR_FUZZED_STORES", "40"))

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


def made(path, *statements, tables=(META, RECORDS), meta=None, before=()):
    """A store as SQLite's own means make it, and what is done to it."""
    given = {"format_version": "1", "fingerprint": MODEL.to_json()} if meta is None else meta
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (*before, *tables):
            connection.execute(statement)
        for named in given.items():
            connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", named)
        connection.execute(f"PRAGMA application_id = {0x42545253}")
        for statement in statements:
            connection.execute(statement)


def use(url):
    """All that a store can do; what it was asked for in vain is StoreError."""
    with open_store(url, MODEL) as store:
        found = store.get_many([KEY, b"x" * 16])
        len(store)
        list(store.keys())
        store.put_many([(b"n" * 16, b"new")])
        store.delete_many([KEY])
        store.keep_only([b"n" * 16])
        store.compact()
        store.file_bytes()
    return found


# what lies beside a store


def journal_that_deletes(victim, pages=0):
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    head = (magic + struct.pack(">IIIII", 0, 7, pages, 512, 512)).ljust(512, b"\0")
    check = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    return head + struct.pack(">I", 0x40000000 // 512 + 1) + name + struct.pack(">II", len(name), check) + magic


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder", "fifo"])
def test_a_rollback_journal_is_not_obeyed(tmp_path, path, url, there, kind):
    victim = tmp_path / "victim.txt"
    victim.write_text("nothing to do with the store", encoding="utf-8")
    if there:
        open_store(url, MODEL).close()
    journal = tmp_path / "store.db-journal"
    real = tmp_path / "elsewhere"
    real.write_bytes(journal_that_deletes(victim))
    match kind:
        case "file":
            real.rename(journal)
        case "link":
            journal.symlink_to(real)
        case "dangling":
            journal.symlink_to(tmp_path / "nothing")
        case "folder":
            journal.mkdir()
        case "fifo":
            os.mkfifo(journal)
    for fingerprint in (MODEL, MODEL if not there else None):
        with pytest.raises(StoreError, match=r"store\.db-journal lies beside the store: a rollback journal"):
            open_store(url, fingerprint)
    assert victim.exists()
    assert path.exists() == there


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "folder", "fifo"])
@pytest.mark.parametrize("there", [True, False])
def test_a_log_that_leads_elsewhere(tmp_path, path, url, end, kind, there):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious " * 1000, encoding="utf-8")
    if there:
        open_store(url, MODEL).close()
    log = tmp_path / f"store.db{end}"
    match kind:
        case "link":
            log.symlink_to(victim)
        case "dangling":
            log.symlink_to(tmp_path / "nothing")
        case "hard link":
            log.hardlink_to(victim)
        case "folder":
            log.mkdir()
        case "fifo":
            os.mkfifo(log)
    with pytest.raises(StoreError, match=rf"store\.db{end} lies beside the store and is a link or no file"):
        open_store(url, MODEL)
    assert victim.read_text(encoding="utf-8") == "precious " * 1000
    assert not (tmp_path / "nothing").exists()


def test_a_journal_that_comes_while_the_store_is_open(tmp_path, url):
    with open_store(url, MODEL) as store:
        len(store)
        (tmp_path / "store.db-journal").write_bytes(journal_that_deletes(tmp_path / "victim.txt"))
        with pytest.raises(StoreError, match="rollback journal"):
            store.put_many([(KEY, b"record")])  # connects anew, to write


def test_a_log_without_its_store_does_not_become_the_new_ones(tmp_path, path, url, caplog):
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"of the old store")])
        log = (tmp_path / "store.db-wal").read_bytes()
    path.unlink()
    (tmp_path / "store.db-wal").write_bytes(log)
    (tmp_path / "store.db-shm").write_bytes(b"")
    with open_store(url, MODEL) as store:
        assert len(store) == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}-wal belonged to a store that was moved or deleted while it was open, and is deleted."
    ]


def test_a_copy_with_its_log_opens(tmp_path, path, url):
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"record")])
        for end in ("", "-wal"):
            (tmp_path / f"copy.db{end}").write_bytes(Path(f"{path}{end}").read_bytes())
        assert (tmp_path / "copy.db-wal").stat().st_size
        with open_store(f"sqlite:///{tmp_path}/copy.db", MODEL) as copied:
            assert copied.get_many([KEY]) == [b"record"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "null"])
def test_no_file_at_the_url(tmp_path, path, url, kind):
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "null":
            path.symlink_to("/dev/null")
    with pytest.raises(StoreError, match="is no file"):
        open_store(url, MODEL)


@pytest.mark.parametrize(
    "name", ["file:x?mode=memory", "x?vfs=unix-none&nolock=1", "x%00y", "x#y", "a&immutable=1", "x?cache=shared"]
)
def test_a_name_is_no_uri(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with open_store(f"sqlite:///{name}", MODEL) as store:
        store.put_many([(KEY, b"record")])
    assert [one.name for one in tmp_path.iterdir()] == [name]


# links


def test_a_link_and_its_target_are_one_store(tmp_path, path, url):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link.db").symlink_to(path)
    through = f"sqlite:///{tmp_path}/links/link.db"
    with open_store(through, MODEL) as linked, open_store(url, MODEL) as direct:
        linked.put_many([(KEY, b"record")])
        assert direct.get_many([KEY]) == [b"record"]
        direct.put_many([(KEY, b"newer")])
        assert linked.get_many([KEY]) == [b"newer"]
        beside = sorted(one.name for one in tmp_path.iterdir())
        assert beside == ["links", "store.db", "store.db-shm", "store.db-wal"]
    assert [one.name for one in (tmp_path / "links").iterdir()] == ["link.db"]


# what a file holds beside records


@pytest.mark.parametrize(
    "tables",
    [
        (META, RECORDS.replace("record BLOB NOT NULL", "record BLOB AS (zeroblob(30000000)) VIRTUAL")),
        (META, RECORDS.replace("record BLOB NOT NULL", "record BLOB AS (zeroblob(3000)) STORED")),
        (META, RECORDS.replace("record BLOB NOT NULL", "record BLOB NOT NULL DEFAULT (randomblob(1000000))")),
        (META, RECORDS.replace("record BLOB NOT NULL", "record BLOB NOT NULL CHECK (length(hex(record)) > 0)")),
        (META, RECORDS.replace("key BLOB", "key BLOB COLLATE NOCASE")),
        (META, RECORDS.replace("key BLOB PRIMARY KEY", "key BLOB PRIMARY KEY ON CONFLICT IGNORE")),
        (META, RECORDS.replace("BLOB", "TEXT")),
        (META, RECORDS.replace(", record", ", more INT, record")),
        (META, RECORDS + " STRICT"),
        (META, RECORDS + " WITHOUT ROWID"),
        (META.removesuffix(" WITHOUT ROWID"), RECORDS),
        (META.replace("value TEXT NOT NULL", "value TEXT AS ('1')"), RECORDS),
        (META, "CREATE VIRTUAL TABLE records USING rtree(key, record, more)"),
        (META, "CREATE TABLE other (key BLOB, record BLOB)", "CREATE VIEW records AS SELECT * FROM other"),
        (META,),
    ],
)
def test_other_tables(path, url, tables):
    made(path, tables=tables, meta={} if " AS " in tables[0] else None)
    with pytest.raises(StoreError, match=r"has, in its schema, the (table|view) '\w+' \(CREATE|lacks a table"):
        open_store(url, MODEL)


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("trigger 't'", "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END"),
        ("trigger 't'", "CREATE TRIGGER t AFTER DELETE ON records BEGIN SELECT load_extension('x'); END"),
        ("view 'v'", "CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c"),
        ("index 'i'", "CREATE INDEX i ON records (record)"),
        ("index 'i'", "CREATE INDEX i ON records (hex(record))"),
        ("index 'i'", "CREATE INDEX i ON records (key) WHERE length(record) > 5"),
        ("table 'sqlite_stat1'", "ANALYZE"),
        ("table '(s|sqlite_sequence)'", "CREATE TABLE s (n INTEGER PRIMARY KEY AUTOINCREMENT)"),
        ("table 't'", "CREATE VIRTUAL TABLE t USING rtree(a, b, c)"),
        (r"table '\\x1b\[2J\\u202e'", 'CREATE TABLE "\x1b[2J\u202e" (x)'),
    ],
)
def test_more_than_our_tables(path, url, kind, statement):
    made(path, "INSERT INTO records VALUES (zeroblob(16), x'00')", statement)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"has, in its schema, the {kind} .*, which is not one of a store") as caught:
        open_store(url, MODEL)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert path.read_bytes() == before


def test_a_newer_store_with_other_tables_is_told_by_its_version(path, url):
    made(path, "CREATE TABLE more (x)", meta={"format_version": "2"})
    with pytest.raises(StoreError, match="has the store format 2, this btr-haystack knows 1"):
        open_store(url, MODEL)


@pytest.mark.parametrize("what", ["records", "meta", "sqlite_autoindex_records_1"])
@pytest.mark.parametrize("root", [0, 1, 2, 3, 4, 999, -1, 2**40, "'x'", "NULL"])
def test_tables_in_odd_places(path, url, what, root):
    made(
        path,
        "INSERT INTO records VALUES (zeroblob(16), x'00')",
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET rootpage = {root} WHERE name = '{what}'",
    )
    try:
        use(url)
    except StoreError:
        return
    with closing(sqlite3.connect(path)) as connection:
        roots = connection.execute("SELECT rootpage FROM sqlite_master").fetchall()
    assert sorted(roots) == [(2,), (3,), (4,)]


@pytest.mark.parametrize(
    "before", ["PRAGMA encoding = 'UTF-16le'", "PRAGMA page_size = 65536", "PRAGMA auto_vacuum = FULL"]
)
def test_honest_content_in_an_odd_file(path, url, before):
    made(path, f"INSERT INTO records VALUES (x'{KEY.hex()}', x'00ff')", "PRAGMA user_version = 99", before=(before,))
    assert use(url) == [b"\x00\xff", None]


def test_a_copy_without_a_log_gets_one_when_it_is_written(tmp_path, path, url):
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"record")])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    with open_store(f"sqlite:///{tmp_path}/copy.db", MODEL) as store:
        assert store.get_many([KEY]) == [b"record"]
        store.put_many([(b"x" * 16, b"more")])
        assert (tmp_path / "copy.db-wal").exists()
        assert len(store) == 2


# what meta says


@pytest.mark.parametrize(
    ("fingerprint", "told"),
    [
        ("[" * 50_000, "a JSON object with `digest` and `description` is expected"),
        ('{"digest": "' + "ab" * 16 + '", "description": ' + '{"a":' * 3000 + "1" + "}" * 3001, "is expected"),
        ("x" * 100_000, "a fingerprint of more than 65536 bytes"),
        ('{"digest": "' + "ab" * 16 + '", "description": {"width": [1]}}', "gives [1] as 'width'"),
        ('{"digest": "' + "ab" * 16 + '", "description": {"width": 1' + "0" * 4000 + "}}", "as 'width'"),
        ('{"digest": "' + "ab" * 16 + '", "description": {"a": 1' + "0" * 5000 + "}}", "is expected"),
        ('{"digest": "\\u001b[2J' + "ab" * 400 + '", "description": {}}', "32 hexadecimal digits"),
        ('{"digest": 7, "description": {}}', "32 hexadecimal digits"),
        ('{"digest": "' + "ab" * 16 + '", "description": "x"}', "is expected"),
        ("", "is expected"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e'"),
        (b"\xff\xfe", "is expected"),
        (7.5, "is expected"),
    ],
)
def test_odd_fingerprints(path, url, fingerprint, told):
    made(path, meta={"format_version": "1", "fingerprint": fingerprint})
    with pytest.raises(StoreError) as caught:
        open_store(url, None)
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("version", ["1 ", "\x1b[31m2", "9" * 50_000, b"1", "", "\uff11"])
def test_odd_versions(path, url, version):
    made(path, meta={"format_version": version, "fingerprint": MODEL.to_json()})
    with pytest.raises(StoreError, match="has the store format") as caught:
        open_store(url, None)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_more_meta(path, url):
    made(path, "INSERT INTO meta VALUES ('more', 'x')")
    with pytest.raises(StoreError, match="tells more of itself than a store does: 'more'"):
        open_store(url, None)


def test_both_descriptions_are_shown_as_text(url):
    hostile = Fingerprint("cd" * 16, {"model": "\x1b]0;owned\x07\u202e" + "x" * 999, "\r\n\x9b": "\u2066" * 999})
    open_store(url, hostile).close()
    with pytest.raises(FingerprintError) as caught:
        open_store(url, MODEL)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert r"\x1b]0;owned\x07\u202exxx" in message
    assert "cd" * 16 in message
    assert "ab" * 16 in message


def test_shown():
    assert shown("Łódź 東京 \u200d😀 «quoted»") == "Łódź 東京 \u200d😀 «quoted»"
    assert shown("a\tb\nc\x00\x7f\x85\u200f\u2028\U000e0041\ud800") == (
        r"a\tb\nc\x00\x7f\x85\u200f\u2028\U000e0041\ud800"
    )
    assert shown("x" * 300) == "x" * 300
    assert shown("x" * 301) == "x" * 297 + "..."
    assert len(shown("\x1b" * 10**7)) == 300
    assert len(shown("\x1b" * 1000, None)) == 4000


# rows that no store writes


@pytest.mark.parametrize(
    "row", ["(1, x'00')", "('0123456789abcdef', x'00')", "(x'00', x'00')", "(zeroblob(17), x'00')", "(x'', x'')"]
)
def test_rows_with_other_keys(path, url, row):
    made(path, f"INSERT INTO records VALUES {row}")
    with open_store(url, MODEL) as store:
        assert store.get_many([KEY]) == [None]
        with pytest.raises(StoreError, match=r"has rows that are no records"):
            store.compact()
        try:
            assert list(store.keys()) == []
        except StoreError as error:
            assert "has keys that are none" in str(error)


@pytest.mark.parametrize(("value", "read"), [("'text'", b"text"), ("7", b"7"), ("0.5", b"0.5")])
def test_records_of_another_type_are_bytes(path, url, value, read):
    made(path, f"INSERT INTO records VALUES (x'{KEY.hex()}', {value})")
    with open_store(url, MODEL) as store:
        assert store.get_many([KEY, KEY]) == [read, read]


def test_a_record_that_is_null_is_missing(path, url):
    loose = RECORDS.replace("record BLOB NOT NULL", "record BLOB")
    made(
        path,
        f"INSERT INTO records VALUES (x'{KEY.hex()}', NULL)",
        "PRAGMA writable_schema = ON",
        f"UPDATE sqlite_master SET sql = '{RECORDS}' WHERE name = 'records'",
        tables=(META, loose),
    )
    with open_store(url, MODEL) as store:
        assert store.get_many([KEY]) == [None]


def with_shared_pages(path, depth=12):
    """A table whose pages lead to the same pages again and again: few bytes, rows without end."""
    made(path, before=("PRAGMA page_size = 512",))
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    first = len(data) // 512 + 1

    def page(kind, cells, right=None):
        body, offsets, end = b"", [], 512
        for cell in cells:
            end -= len(cell)
            offsets.append(end)
            body = cell + body
        head = struct.pack(">BHHHB", kind, 0, len(cells), end, 0) + (struct.pack(">I", right) if right else b"")
        return (head + b"".join(struct.pack(">H", one) for one in offsets)).ljust(end, b"\0") + body

    index_leaf = bytes([3, 44, 1]) + KEY + bytes([1])  # a header of 3 bytes, a blob of 16, an integer of 1
    table_leaf = bytes([3, 44, 14]) + KEY + b"\1"

    def tree(kind_of_leaf, leaf_cell, kind, inner):
        nonlocal first
        pages = [page(kind_of_leaf, [leaf_cell] * 4)]
        number = first
        for _ in range(depth):
            pages.append(page(kind, [inner(number)] * 9, number))
            number += 1
        for one in pages[:-1]:
            data.extend(one)
        first = number
        return pages[-1]

    payload = bytes([len(index_leaf)]) + index_leaf
    root = tree(10, payload, 2, lambda child: struct.pack(">I", child) + payload)
    data[(roots["sqlite_autoindex_records_1"] - 1) * 512 :][:512] = b""
    start = (roots["sqlite_autoindex_records_1"] - 1) * 512
    data[start : start + 512] = root
    root = tree(13, bytes([len(table_leaf), 1]) + table_leaf, 5, lambda child: struct.pack(">I", child) + b"\1")
    start = (roots["records"] - 1) * 512
    data[start : start + 512] = root
    data[28:32] = struct.pack(">I", len(data) // 512)
    path.write_bytes(data)


def test_rows_without_end(path, url):
    with_shared_pages(path)
    for ask in (len, lambda store: list(store.keys()), lambda store: store.compact()):
        with open_store(url, MODEL) as store, pytest.raises(StoreError, match=r"The file is damaged\. Restore a copy"):
            ask(store)
    with open_store(url, MODEL) as store:
        store.get_many([KEY])
    assert path.stat().st_size < 20_000


def test_a_log_that_claims_more_pages_than_there_are(tmp_path, path, url):
    """Memory for a record is bounded by the pages of the file, whose number the log gives."""
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"record")])
        log = bytearray((tmp_path / "store.db-wal").read_bytes())
        file = bytearray(path.read_bytes())
    order = ">" if log[3] & 1 else "<"

    def checksum(data, start):
        one, two = start
        words = struct.unpack(f"{order}{len(data) // 4}I", data)
        for a, b in zip(words[::2], words[1::2], strict=True):
            one = (one + a + two) & 0xFFFFFFFF
            two = (two + b + one) & 0xFFFFFFFF
        return one, two

    state = struct.unpack(">II", log[24:32])
    for at in range(32, len(log), 512 + 24):
        if struct.unpack(">I", log[at + 4 : at + 8])[0]:
            log[at + 4 : at + 8] = struct.pack(">I", 2**30)
        state = checksum(log[at : at + 8] + log[at + 24 : at + 536], state)
        log[at + 16 : at + 24] = struct.pack(">II", *state)
    file[28:32] = struct.pack(">I", 2**30)
    (tmp_path / "copy.db").write_bytes(file)
    (tmp_path / "copy.db-wal").write_bytes(log)
    with pytest.raises(StoreError, match="is cut short: it has"):
        open_store(f"sqlite:///{tmp_path}/copy.db", MODEL)


# damage at random


def damaged(data, draw):
    """A file with bits turned, bytes written over, pages moved, cut or grown; or its log changed."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        at = draw.choice([draw.randrange(len(changed)), draw.randrange(100), draw.randrange(512)]) % len(changed)
        match draw.randrange(7):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + 4] = draw.randbytes(4)
            case 2:
                changed[at : at + 4] = draw.choice([b"\0" * 4, b"\xff" * 4, b"\0\0\0\2", b"\x7f\xff\xff\xff"])
            case 3:
                here, there = (512 * draw.randrange(len(changed) // 512) for _ in range(2))
                changed[here : here + 512] = changed[there : there + 512]
            case 4:
                page = 512 * draw.randrange(len(changed) // 512)
                changed[page : page + 12] = draw.randbytes(12)
            case 5:
                del changed[max(512, at) :]
            case 6:
                changed[at:at] = draw.randbytes(draw.choice([1, 512, 1024]))
    return bytes(changed)


def crafted(path, draw):
    """A store with one odd thing of each sort that a stranger could choose, made by SQLite itself."""
    values = ["x''", "NULL", "7", "'text'", "zeroblob(100000)", f"x'{KEY.hex()}'", "randomblob(16)", "-1e300"]
    extra = [
        "CREATE TABLE more (a, b AS (a || a))",
        "CREATE VIEW v AS SELECT * FROM records",
        "CREATE TRIGGER t BEFORE INSERT ON records BEGIN SELECT 1; END",
        "CREATE INDEX i ON records (length(record))",
        "ANALYZE",
        f"PRAGMA application_id = {draw.randrange(2**31)}",
        f"PRAGMA user_version = {draw.randrange(2**31)}",
        "PRAGMA journal_mode = WAL",
        "DELETE FROM meta WHERE name = 'fingerprint'",
        "UPDATE meta SET value = zeroblob(1000)",
        "UPDATE meta SET value = value || value",
        "DELETE FROM records",
    ]
    statements = [
        f"INSERT OR IGNORE INTO records VALUES ({draw.choice(values)}, {draw.choice(values)})" for _ in range(9)
    ]
    before = draw.choice([(), ("PRAGMA page_size = 512",), ("PRAGMA encoding = 'UTF-16be'",)])
    loose = RECORDS.replace(" NOT NULL", "")
    fix = ["PRAGMA writable_schema = ON", f"UPDATE sqlite_master SET sql = '{RECORDS}' WHERE name = 'records'"]
    made(
        path, *statements, *draw.sample(extra, draw.randrange(3)), *fix, tables=(META, loose), before=before,
    )  # fmt: skip


@needs_fork
def test_damage_at_random_gives_our_own_errors(tmp_path, path, url):
    """In a process of its own, whose memory is bounded and which is killed if it hangs."""
    with open_store(url, MODEL) as store:
        store.put_many((bytes([i]) * 16, bytes([i]) * (i * 40)) for i in range(60))
        store.put_many([(KEY, b"record" * 50)])
        log = Path(f"{path}-wal").read_bytes()
        short = path.read_bytes()
    whole = path.read_bytes()
    folder = tmp_path / "fuzzed"
    folder.mkdir()

    def work(told):
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + (300 << 20),) * 2)
        for number in range(FUZZED):
            draw = random.Random(number)
            file = folder / f"{number}.db"
            match number % 4:
                case 0:
                    crafted(file, draw)
                case 1:
                    file.write_bytes(short)
                    Path(f"{file}-wal").write_bytes(damaged(log, draw))
                    Path(f"{file}-shm").write_bytes(draw.randbytes(draw.choice([0, 3, 32768])))
                case 2 | 3:
                    file.write_bytes(damaged(whole, draw))
            for _ in range(2):
                try:
                    use(f"sqlite:///{file}")
                except BTRError as error:
                    if not str(error).isprintable():
                        told.send(f"{number}: {error!r}")
                except BaseException as error:
                    told.send(f"{number}: {error!r}")
            told.send(number)
            for end in ("", "-wal", "-shm", "-journal"):
                Path(f"{file}{end}").unlink(missing_ok=True)
        told.send(None)

    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=work, args=(there,))
    child.start()
    there.close()
    complaints, last = [], None
    while True:
        if not here.poll(60):
            child.kill()
            complaints.append("hangs")
            break
        try:
            said = here.recv()
        except EOFError:
            complaints.append(f"died behind {last}")
            break
        if said is None:
            break
        if isinstance(said, str):
            complaints.append(said)
        else:
            last = said
    child.join()
    assert complaints == []


def _address_space():
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()


# what a store leaves


@needs_fork
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_its_owner_may_read_a_new_store(tmp_path, url, umask):
    before = os.umask(umask)
    try:
        with open_store(url, MODEL) as store:
            store.put_many([(KEY, b"record")])
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)


def test_the_mode_of_a_store_stays(path, url):
    open_store(url, MODEL).close()
    path.chmod(0o640)
    with open_store(url, MODEL) as store:
        store.put_many([(KEY, b"record")])
        store.compact()
        modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == {0o640}


@pytest.mark.parametrize("length", [20, 200, 5_000])
def test_nothing_is_left_of_a_deleted_record(tmp_path, url, length):
    draw = random.Random(0)
    records = {draw.randbytes(16): draw.randbytes(length) for _ in range(300)}
    gone = list(records)[::3]
    with open_store(url, MODEL) as store:
        for key, record in records.items():
            store.put_many([(key, record)])
        store.put_many((key, records[key][::-1]) for key in gone[:10])  # the older ones are overwritten
        store.delete_many(gone)
        store.compact()

        def left():
            content = b"".join(one.read_bytes() for one in tmp_path.iterdir())
            parts = [part for key in gone for part in (key, records[key][:16], records[key][-16:][::-1])]
            return [part for part in parts if part in content]

        assert left() == []
        stays = next(key for key in records if key not in gone)
        assert stays in (tmp_path / "store.db").read_bytes()
    assert left() == []


def test_a_store_has_its_name_when_it_is_whole(tmp_path, url, monkeypatch):
    """Whoever looks in the folder while a store is made finds no store there, or all of it."""
    link, seen = os.link, []

    def watched(source, target):
        seen.extend(one.name for one in tmp_path.iterdir())
        with closing(sqlite3.connect(source)) as connection:
            seen.append(connection.execute("SELECT count(*) FROM meta").fetchone())
        link(source, target)

    monkeypatch.setattr(os, "link", watched)
    open_store(url, MODEL).close()
    (name, rows) = seen
    assert name.startswith(".store.db-")
    assert rows == (2,)
    assert [one.name for one in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.parametrize("links", [True, False])
def test_who_is_slower_takes_the_store_that_is_there(tmp_path, url, monkeypatch, links):
    """Also where the file system knows no hard links."""

    def no_link(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    makers = [multiprocessing.get_context("fork").Process(target=put_one, args=(url, one)) for one in range(5)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    with open_store(url, MODEL) as store:
        assert len(store) == 5
    assert [one.name for one in tmp_path.iterdir()] == ["store.db"]


def put_one(url, number):
    with open_store(url, MODEL) as store:
        store.put_many([(bytes([number]) * 16, b"record")])


def test_a_folder_that_somebody_keeps_locked(tmp_path, url, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(making, "_TRIES", 2)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="has been locked"):
            open_store(url, MODEL)
    finally:
        os.close(handle)
    open_store(url, MODEL).close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["store.db"]


@pytest.mark.parametrize("change", ["put_many", "delete_many"])
def test_what_is_written_may_not_close_the_store(url, change):
    with open_store(url, MODEL) as store:

        def closing_half_way():
            yield (b"0" * 16, b"record") if change == "put_many" else b"0" * 16
            store.close()

        with pytest.raises(StoreError, match="close it when the last record is put"):
            getattr(store, change)(closing_half_way())
        store.put_many([(b"1" * 16, b"record")])
        assert list(store.keys()) == [b"1" * 16]
