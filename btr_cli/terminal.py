# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What stands around a command: no terminal's encoding and no pipe that is closed early ends it before it has saved."""

import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from transformers.utils import logging as transformers_logging

T = TypeVar("T")

WIDE = 200  # columns where nothing says how many there are


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """
    Meanwhile a logger tells of errors alone; a decorator, too.

    :param name: of the logger.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def safe_output() -> Iterator[None]:
    """
    Let a command print what it likes.

    A character that the encoding of stdout or stderr lacks is shown as an escape, such as `\\u2026`; what is written
    into a pipe whose reader has gone is dropped, and the command goes on; a bar of progress is drawn on terminals only.
    """
    if not shows_progress():
        transformers_logging.disable_progress_bar()  # of the weights that it loads
    with redirect_stdout(_safe(sys.stdout)), redirect_stderr(_safe(sys.stderr)):
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(OSError):  # a full disk, which has been told of
                    stream.flush()


def shows_progress() -> bool:
    """Whether there is somebody to look at a bar of progress: it is drawn on stderr, beside the results."""
    return sys.stderr is not None and sys.stderr.isatty()


def result_console() -> Console:
    """Where results are shown; what goes into a file or a pipe is not squeezed into 80 columns."""
    unknown = "COLUMNS" not in os.environ and (sys.stdout is None or not sys.stdout.isatty())
    return Console(width=WIDE if unknown else None)


def tracked(items: Iterable[T], description: str, total: float | None = None) -> Iterable[T]:
    """
    The items, with a bar of progress.

    :param items: what is gone through.
    :param description: what the bar is called.
    :param total: how many items there are, where they do not tell.
    """
    return track(items, description, total, console=Console(stderr=True), disable=not shows_progress())


def readable(text: str) -> str:
    """
    Text from the command line or of a file's name, read as UTF-8 where the locale's encoding could not decode it.

    :param text: as Python gives it, with surrogates for the bytes that were not decoded.
    :returns: the same; bytes that are not UTF-8 either are U+FFFD.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Pipe(io.FileIO):
    """A file descriptor that goes on taking what nobody reads any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _safe(stream: Any) -> Any:
    """A stream that escapes what its encoding lacks; where there is none, or one that holds text, it stays."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # held in memory
        return stream
    if stream.isatty():
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(descriptor, "w", closefd=False)), stream.encoding, stream.errors,
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
