# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The `btr` command."""

import logging
import sys

import typer
from rich.console import Console
from rich.text import Text

from btr_cli.ask import ask
from btr_cli.benchmark import benchmark
from btr_cli.demo import demo
from btr_cli.evaluate import evaluate
from btr_cli.questions import questions
from btr_cli.terminal import safe_output
from btr_cli.train import train
from btr_haystack.display import shown
from btr_haystack.errors import BTRError

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Binary token representations for Haystack."
)
app.command()(train)
app.command()(questions)
app.command()(evaluate)
app.command()(benchmark)
app.command()(ask)
app.command()(demo)


def main() -> None:
    """Run the command; a failure that has a name is told in a line, not in a traceback."""
    with safe_output():
        run()


def run() -> None:
    """Run the command, its output being safe."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # Haystack's telemetry tries again and again without a network
    logging.getLogger("btr_haystack").setLevel(logging.INFO)  # Haystack's would tell of every step of every question
    try:
        app()
    except (BTRError, ValueError, OSError, ImportError) as error:
        line = shown(" ".join(str(error).split()), None)
        Console(stderr=True).print(Text.assemble(("btr:", "red"), " ", line), soft_wrap=True)
        sys.exit(1)
