# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Documents to try things with: the shipped Wikipedia passages, or a file of the user's."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haystack import Document

from btr_cli.terminal import shows_progress
from btr_haystack.errors import DataError, FingerprintError
from btr_haystack.files import read_values
from haystack_integrations.components.readers.btr import BinaryTokenStore


def wikipedia_folder() -> Path:
    """Folder of the shipped passages and questions: inside an installed package, under examples/ in a checkout."""
    installed = Path(__file__).parent / "wikipedia"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "examples" / "wikipedia"


def read_documents(path: Path) -> list[Document]:
    """
    Documents from a file, each an object with "text" (or "content") and, if any, "title".

    They come as JSON lines, as one JSON list, or as rows of Parquet, plain or gzip.

    :param path: the file.
    :raises DataError: where the file or a line cannot be read, names the line; and where there is no document at all.
    """
    documents = []
    for place, entry in _entries(path):
        text = entry.get("text", entry.get("content")) if isinstance(entry, dict) else None
        if not isinstance(text, str):
            msg = f'{place}: expected a JSON object with "text" and, if any, "title"; got {entry!r:.80}'
            raise DataError(msg)
        try:
            documents.append(Document(content=text, meta={"title": str(entry.get("title") or "")}))
        except UnicodeEncodeError as error:  # Haystack makes a Document's id of it
            msg = f"{place}: not Unicode: {error}; write the character as it is, or leave it out"
            raise DataError(msg) from error
    if not documents:
        msg = f"{path} holds no documents"
        raise DataError(msg)
    return documents


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    for place, _, value in read_values(path):
        if isinstance(value, list):
            yield from ((f"{path}: [{i}]", one) for i, one in enumerate(value))
        else:
            yield place, value


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
    store = BinaryTokenStore(url=f"sqlite:///{file}", progress_bar=shows_progress())
    try:
        store.warm_up()
    except FingerprintError:
        for end in ("", "-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        store.warm_up()
    return store
