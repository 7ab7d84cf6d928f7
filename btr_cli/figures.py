# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Figures: where they go, and how they are shown."""

import json
import os
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from btr_cli.terminal import result_console

TABLE, JOURNAL = ".md", ".answers.jsonl"  # beside the figures


def check_output(output: Path | None, *inputs: Path | None) -> None:
    """
    Refuse, before any work, a file that figures cannot be written to.

    :param output: the file; None where there is none.
    :param inputs: files that are read, which neither it nor what stands beside it may overwrite.
    :raises FileNotFoundError: if its folder is not there.
    :raises IsADirectoryError: if it is a folder.
    :raises PermissionError: if it must not be written.
    :raises ValueError: if an input would be overwritten.
    """
    if output is None:
        return
    if not output.parent.is_dir():
        msg = f"{output.parent}: no such folder for the figures"
        raise FileNotFoundError(msg)
    if output.is_dir():
        msg = f"{output} is a folder; expected a file for the figures"
        raise IsADirectoryError(msg)
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        msg = f"{output} must not be written by this user; give another file for the figures"
        raise PermissionError(msg)
    written = {path.resolve() for path in (output, *map(output.with_suffix, (TABLE, JOURNAL)))}
    for path in inputs:
        if path is not None and path.resolve() in written:
            msg = f"{path} is read, and figures in {output} would overwrite it; give them another name"
            raise ValueError(msg)


def tell(
    columns: tuple[str, ...], lines: list[tuple[str, ...]], title: str, figures: dict[str, Any], output: Path | None
) -> None:
    """
    Keep a table in Markdown, and the figures in JSON; then show it, also where it could not be kept.

    :param columns: names of the table's columns.
    :param lines: the table's cells.
    :param title: above the table.
    :param figures: what the JSON file says.
    :param output: the JSON file; the table goes beside it. None to show the table alone.
    """
    try:
        if output:
            output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            table = as_markdown(columns, lines, title)
            output.with_suffix(TABLE).write_text(table, encoding="utf-8", errors="backslashreplace")
            typer.echo(f"saved {output} and {output.with_suffix(TABLE)}", err=True)
    finally:
        result_console().print(as_table(columns, lines, title))


def as_table(columns: tuple[str, ...], lines: list[tuple[str, ...]], title: str) -> Table:
    """Figures for people."""
    table = empty_table(*columns, title=title)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def empty_table(*columns: str, title: str | None = None) -> Table:
    """A table that folds what is too long for its column: figures and answers are never cut."""
    table = Table(title=None if title is None else Text(title))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def as_markdown(columns: tuple[str, ...], lines: list[tuple[str, ...]], title: str) -> str:
    """Figures for a README."""
    rows = [columns, ("---",) * len(columns), *lines]
    return f"{title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)
