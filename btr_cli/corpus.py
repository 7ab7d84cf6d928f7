# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Documents to try things with: the shipped Wikipedia passages, or a file of the user's."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

from haystack import Document

from btr_haystack.errors import DataError


def wikipedia_folder() -> Path:
    """Folder of the shipped passages and questions: inside an installed package, under examples/ in a checkout."""
    installed = Path(__file__).parent / "wikipedia"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "examples" / "wikipedia"


def read_documents(path: Path) -> list[Document]:
    """
    Documents from a file of JSON lines, plain or gzip, each an object with "text" (or "content") and, if any, "title".

    :param path: the file.
    :raises DataError: where the file or a line cannot be read; names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise DataError(msg) from error
    lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8").splitlines()
    documents = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            text = entry["text"] if "text" in entry else entry["content"]
        except (ValueError, KeyError, TypeError) as error:
            msg = f'{path}, line {number}: expected a JSON object with "text" and, if any, "title"; got {line[:80]!r}'
            raise DataError(msg) from error
        documents.append(Document(content=text, meta={"title": entry.get("title", "")}))
    return documents


def shipped_documents() -> list[Document]:
    """The shipped Wikipedia passages."""
    return read_documents(wikipedia_folder() / "passages.jsonl.gz")


def shipped_questions() -> list[dict[str, Any]]:
    """Questions about the shipped passages: each with "question", "answers" and "title"."""
    questions: list[dict[str, Any]] = json.loads((wikipedia_folder() / "questions.json").read_text(encoding="utf-8"))
    return questions


def cached_store_url(name: str) -> str:
    """Url of a store in the user's cache folder, which is made where it is missing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btr-haystack"
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home.resolve() / name}"
