# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What a long command has done so far, kept so that it goes on where it was broken off."""

import json
from pathlib import Path
from typing import Any

from btr_haystack.errors import DataError


class JsonLines:
    """
    JSON values in a file, a line each, behind a first line that tells what they depend on.

    :param path: the file; None keeps nothing.
    :param head: what they depend on.
    :param what: what a value is called in messages, in the singular, beginning with a vowel.
    :raises DataError: where the file has another head, or a line that is not JSON. A last line without an end was
        broken off and is cut off.
    """

    def __init__(self, path: Path | None, head: dict[str, Any], what: str) -> None:
        self.path = path
        self.values: list[Any] = []
        if path is None:
            return
        first = (json.dumps(head) + "\n").encode()
        data = path.read_bytes() if path.exists() else b""
        if len(data) < len(first) and first.startswith(data):  # new, or broken off in its first line
            path.write_bytes(first)
            return
        end = data.rfind(b"\n") + 1
        lines = data[:end].decode("utf-8", "replace").split("\n")[:-1]
        found: list[Any] = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                msg = f"{path}, line {number}: not an {what}: {line:.80}"
                raise DataError(msg) from error
        if not found or found[0] != json.loads(first):
            msg = f"{path} holds {what}s of another run ({lines[:1]!s:.300}); expected {first.decode()}: move it away"
            raise DataError(msg)
        self.values = found[1:]
        with path.open("r+b") as file:
            file.truncate(end)

    def add(self, value: Any) -> None:
        """Keep one value, which JSON can hold."""
        self.values.append(value)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")
