# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Text files, plain or compressed with gzip, Parquet files, and what stands in them; every failure names its place."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from btr_haystack.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PARQUET = b"PAR1"
_UTF16 = "text in UTF-16, by its byte order mark"
_FOREIGN = {
    _PARQUET: "a Parquet file, which holds no text",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"BZh91AY&SY": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
_HEAD = max(map(len, _FOREIGN))
_LONGEST_LINE = 16 << 20  # a passage has about 600 bytes; a file without line breaks must not fill the memory
_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_FIELD = re.compile(rf"(?:\A|\t)({_QUOTED.pattern}|[^\t]*)(?=\t|\Z)")


def read_text(path: Path) -> str:
    """
    Read a whole file.

    :param path: The file. Its content, not its name, tells whether it is compressed.
    :returns: Its text, without a byte order mark.
    :raises DataError: If it cannot be read or is not UTF-8.
    """
    with _opened(path) as file:
        _refuse_foreign(file, path)
        data = file.read()
    return _decoded(data.removeprefix(_BOM), path, 1)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """
    Read a file line by line, holding one line at a time.

    :param path: The file. Its content, not its name, tells whether it is compressed.
    :returns: The lines that are not blank, with their numbers from 1, without their ends and a byte order mark.
    :raises DataError: If the file cannot be read, a line is not UTF-8 or takes more than 16 MiB.
    """
    with _opened(path) as file:
        _refuse_foreign(file, path)
        number = 0
        while data := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(data) > _LONGEST_LINE:
                msg = f"{path}, line {number}: longer than {_LONGEST_LINE} bytes; expected one passage a line"
                raise DataError(msg)
            if number == 1:
                data = data.removeprefix(_BOM)
            if data.strip():
                yield number, _without_end(_decoded(data, path, number))


def is_table(path: Path) -> bool:
    """
    Tell by its first characters whether a file holds lines of text and neither JSON nor Parquet.

    :param path: The file. Its content, not its name, tells whether it is compressed.
    :returns: Whether its first character that is not white space opens no JSON list or object; False where it has none.
    :raises DataError: If it cannot be read.
    """
    with _opened(path) as file:
        if file.peek(_HEAD).startswith(_PARQUET):
            return False
        _refuse_foreign(file, path)
        head = file.read(1 << 12).removeprefix(_BOM).lstrip()
        while not head and (more := file.read(1 << 12)):
            head = more.lstrip()
    return bool(head) and not head.startswith((b"{", b"["))


def read_values(path: Path) -> Iterator[tuple[str, int, Any]]:
    """
    Read the values of a file of JSON lines or of Parquet one at a time, or the only value of another file of JSON.

    :param path: The file, plain or compressed with gzip; its content, not its name, tells what it is.
    :returns: Each value with its place, for messages, and its number: that of the line or row, from 1. Failures show
        when the iteration comes to them.
    :raises DataError: If the file cannot be read, is not UTF-8 or not JSON.
    :raises ImportError: For a Parquet file, without the package `pyarrow`.
    """
    with _opened(path) as file:
        if file.peek(_HEAD).startswith(_PARQUET):
            for number, row in enumerate(_rows(file, path), 1):
                yield f"{path}, row {number}", number, row
            return
        _refuse_foreign(file, path)
        if file.peek(len(_BOM)).startswith(_BOM):
            file.read(len(_BOM))
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        number, first = next(lines, (0, b""))
        if not first:
            return
        try:
            value = parsed(_decoded(first, path, number), path, number)
        except DataError:  # JSON of several lines, or damaged JSON
            rest = file.read()
            if not rest.strip():
                raise
            yield str(path), number, parsed(_decoded(first + rest, path, number), path, number)
            return
        yield f"{path}, line {number}", number, value
        for number, line in lines:
            yield f"{path}, line {number}", number, parsed(_decoded(line, path, number), path, number)


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    r"""
    Split a text at its line feeds, and at no other character that Python takes for the end of a line.

    >>> list(lines_of("one\r\n\n  \ntwo\u2028three\n"))
    [(1, 'one'), (4, 'two\u2028three')]

    :param text: The text.
    :returns: The lines that are not blank, with their numbers from 1, without their ends.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _without_end(line)


def fields_of(line: str, count: int) -> list[str]:
    r"""
    Split a line at its tabs, and take fields out of their csv quotes.

    A field that begins with a quotation mark but is not quoted as csv prescribes is taken as it stands, unlike in
    Python's csv module: files written without quoting have texts that begin like that.

    >>> fields_of('7\t"A ""word""."\t"Word" (album)', 3)
    ['7', 'A "word".', '"Word" (album)']
    >>> fields_of('7\t"one\ttwo"\tThree', 3)
    ['7', 'one\ttwo', 'Three']

    :param line: A line without its end.
    :param count: How many fields it should have. A tab inside of quotes splits only where that gives this number.
    :returns: The fields, as many as there are.
    """
    fields = line.split("\t")
    if len(fields) != count:
        fields = [match[1] for match in _FIELD.finditer(line)]
    return [_unquoted(field) for field in fields]


def parsed(text: str, path: Path, first: int = 1) -> Any:
    """
    Parse JSON.

    :param text: The whole text of a file, or a line of it.
    :param path: The file, for the message.
    :param first: The number of the text's first line in the file.
    :returns: What the text stands for.
    :raises DataError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"{path}, line {first + error.lineno - 1}: not JSON: {error.msg} at column {error.colno}"
        raise DataError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path}, line {first}: not JSON: {error}"
        raise DataError(msg) from error


def value_of(entry: Any, key: str, kind: type, place: str) -> Any:
    """
    Look up a value of a JSON object.

    >>> value_of({"question": "who?"}, "question", str, "nq.jsonl, line 1")
    'who?'
    >>> value_of({"question": "who?"}, "answer", list, "nq.jsonl, line 1")
    Traceback (most recent call last):
        ...
    btr_haystack.errors.DataError: nq.jsonl, line 1: the key 'answer' is missing; found 'question'

    :param entry: What should be the object.
    :param key: The key.
    :param kind: `str`, `list` or `dict`. A text must not be blank.
    :param place: Where the entry stands, for the message.
    :returns: The value.
    :raises DataError: If the entry is no object, has no such key or a value of another kind.
    """
    if not isinstance(entry, dict):
        msg = f"{place}: expected an object with the key {key!r}, found {entry!r:.50}"
        raise DataError(msg)
    if key not in entry:
        found = ", ".join(map(repr, list(entry)[:10])) or "no key"
        msg = f"{place}: the key {key!r} is missing; found {found}"
        raise DataError(msg)
    value = entry[key]
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        msg = f"{place}: the value of {key!r} is {value!r:.50}; expected {_KINDS[kind]}"
        raise DataError(msg)
    return value


def texts_of(values: Any, name: str, place: str) -> tuple[str, ...]:
    """
    Take a list of texts, without those that are blank.

    >>> texts_of(["Oslo", ""], "answer", "nq.jsonl, line 1")
    ('Oslo',)

    :param values: What should be the list.
    :param name: What it is called in the file, for the message.
    :param place: Where it stands, for the message.
    :returns: The texts; may be none.
    :raises DataError: If it is not a list of texts.
    """
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        msg = f"{place}: the value of {name!r} is {values!r:.50}; expected a list of texts"
        raise DataError(msg)
    return tuple(value for value in values if value.strip())


def _refuse_foreign(file: BufferedReader | gzip.GzipFile, path: Path) -> None:
    """
    Tell of files that are known by how they begin, better than by their first character that is not UTF-8.
    """
    head = file.peek(_HEAD)
    for begin, name in _FOREIGN.items():
        if head.startswith(begin):
            msg = f"{path}: {name}; expected text in UTF-8, plain or compressed with gzip"
            raise DataError(msg)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    try:
        with path.open("rb") as raw:
            yield gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP_MAGIC) else raw
    except FileNotFoundError as error:
        msg = f"{path}: no such file"
        raise DataError(msg) from error
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path}: cannot be read: {error}"
        raise DataError(msg) from error


def _rows(file: BufferedReader | gzip.GzipFile, path: Path) -> Iterator[dict[str, Any]]:
    """
    The rows of a Parquet file, with Python's own types.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        msg = f"{path} is a Parquet file, which is read with pyarrow: pip install 'btr-haystack[parquet]'"
        raise ImportError(msg) from error
    try:
        source = BytesIO(file.read()) if isinstance(file, gzip.GzipFile) else file
        for batch in parquet.ParquetFile(source).iter_batches():
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        msg = f"{path}: cannot be read: {error}"
        raise DataError(msg) from error


def _decoded(data: bytes, path: Path, first: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        number = first + data.count(b"\n", 0, error.start)
        msg = f"{path}, line {number}: expected UTF-8, found the byte {data[error.start]:#04x}"
        raise DataError(msg) from error


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _unquoted(field: str) -> str:
    match = _QUOTED.fullmatch(field)
    return match[1].replace('""', '"') if match else field
