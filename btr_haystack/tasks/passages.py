# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Reading Wikipedia as DPR splits it: psgs_w100.tsv, and files of the same form."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btr_haystack.errors import DataError
from btr_haystack.files import fields_of, read_lines

_HEADER = ["id", "text", "title"]


@dataclass(frozen=True, slots=True)
class WikiPassage:
    """
    A passage, and the title of the article it stands in.
    """

    id: str
    text: str
    title: str


def read_passages(path: str | Path) -> Iterator[WikiPassage]:
    """
    Read the passages of a file with the columns id, text and title, one at a time.

    The header may be missing. Columns are split by tabs; where they are quoted as in csv (DPR's own file is, others are
    not), the quotes are taken off. Unlike DPR's reader, this one leaves quotation marks that belong to a text.

    :param path: The file, plain or compressed with gzip.
    :returns: The passages in the order of the file. Failures show when the iteration comes to them.
    :raises DataError: If the file cannot be read, holds no passage, or has a line that is not three fields.
    """
    path = Path(path)
    empty, first = True, True
    for number, line in read_lines(path):
        fields = fields_of(line, len(_HEADER))
        header, first = first and fields[0] == _HEADER[0], False
        if len(fields) != len(_HEADER) or (header and fields != _HEADER):
            msg = (
                f"{path}, line {number}: expected a passage's id, text and title in one line, split by tabs; "
                f"found {len(fields)} fields: {line!r:.80}"
            )
            raise DataError(msg)
        if not header:
            empty = False
            yield WikiPassage(*fields)
    if empty:
        msg = f"{path}: empty; expected passages with id, text and title"
        raise DataError(msg)
