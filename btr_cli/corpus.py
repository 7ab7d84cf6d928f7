# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Documents to try things with: the shipped Wikipedia passages, or a file of the user's."""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

from haystack import Document

from btr_haystack.errors import DataError, FingerprintError
from haystack_integrations.components.readers.btr import BinaryTokenStore


def wikipedia_folder() -> Path:
    """Folder of the shipped passages and questions: inside an installed package, under examples/ in a checkout."""
    installed = Path(__file__).parent / "wikipedia"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "examples" / "wikipedia"


def read_documents(path: Path) -> list[Document]:
    """
    Documents from a file of JSON lines, plain or gzip, each an object with "text" (or "content") and, if any, "title".

    :param path: the file.
    :raises DataError: where the file or a line cannot be read, names the line; and where there is no document at all.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(msg) from error
    documents = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON may hold its other line ends
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            content = entry["text"] if "text" in entry else entry["content"]
            title = entry.get("title") or ""
            document = Document(content=content, meta={"title": str(title)})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f'{path}, line {number}: expected a JSON object with "text" and, if any, "title"; got {line[:80]!r}'
            raise DataError(msg) from error
        documents.append(document)
    if not documents:
        msg = f"{path} holds no documents"
        raise DataError(msg)
    return documents


def shipped_documents() -> list[Document]:
    """The shipped Wikipedia passages."""
    return read_documents(wikipedia_folder() / "passages.jsonl.gz")


def shipped_questions() -> list[dict[str, Any]]:
    """Questions about the shipped passages: each with "question", "answers" and "title"."""
    questions: list[dict[str, Any]] = json.loads((wikipedia_folder() / "questions.json").read_text(encoding="utf-8"))
    return questions


def cached_store() -> BinaryTokenStore:
    """The store of the shipped passages in the user's cache folder; one that another model has filled is made anew."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btr-haystack"
    home.mkdir(parents=True, exist_ok=True)
    file = home.resolve() / "wikipedia.db"
    store = BinaryTokenStore(url=f"sqlite:///{file}")
    try:
        store.warm_up()
    except FingerprintError:
        for end in ("", "-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        store.warm_up()
    return store
