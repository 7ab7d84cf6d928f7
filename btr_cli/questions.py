# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr questions`: a training file for passages that nobody has asked about."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from transformers import AutoTokenizer

from btr_cli.pipelines import checked_source, keeps, sampled
from btr_haystack.default import DEFAULT_TEACHER
from btr_haystack.errors import DataError, ModelError
from btr_haystack.generative import BTRForConditionalGeneration
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.tasks import WikiPassage, read_passages
from btr_haystack.training.asker import answer_questions, write_questions
from btr_haystack.training.stages import fast_bf16

AT_A_TIME = 64  # passages


def questions(
    passages: Annotated[Path, typer.Argument(help="Passages: id, text and title, split by tabs, plain or gzip.")],
    asker: Annotated[str, typer.Option(help="Folder of the asker: btr train asker.")],
    output: Annotated[Path, typer.Option(help="SQuAD-format file to be written, with gzip where it ends in .gz.")],
    teacher: Annotated[str, typer.Option(help="An ordinary reader, which answers.")] = DEFAULT_TEACHER,
    each: Annotated[int, typer.Option(min=1, help="Questions sampled a passage.")] = 4,
    least: Annotated[float, typer.Option(min=0, max=1, help="Probability that an answer must have.")] = 0.1,
    without: Annotated[
        list[Path] | None, typer.Option(help="SQuAD-format file whose articles are left out, to be tested on; again.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Passages, drawn with the seed; default: all.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Most tokens of a passage.")] = 256,
    seed: Annotated[int, typer.Option(help="Of sample and questions.")] = 0,
) -> None:
    """
    Write questions about passages and keep those whose answers the teacher is sure of; resumed when run again.
    """
    if not output.parent.is_dir():
        msg = f"{output.parent}: no such folder for the questions"
        raise FileNotFoundError(msg)
    if output.exists():
        msg = f"{output} is there already; move it away, or name another file"
        raise FileExistsError(msg)
    source, taught = checked_source(asker), checked_source(teacher)
    left_out = {_name(paragraph.title) for file in without or () for paragraph in read_squad(file)}
    chosen = sampled([one for one in read_passages(passages) if _name(one.title) not in left_out], sample, seed)
    if not chosen:
        msg = f"{passages}: every passage is of an article that is left out"
        raise DataError(msg)
    settings = {
        "passages": [one.id for one in chosen], "asker": Path(source).name, "teacher": Path(taught).name, "each": each,
        "least": least, "window": window, "seed": seed,
    }  # fmt: skip
    part = output.with_name(output.name + ".part")
    chosen.sort(key=lambda one: len(one.text))  # so that little of a group is padding
    models = _loaded(source, taught)
    done = _begun(part, hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest())
    groups = [chosen[first : first + AT_A_TIME] for first in range(0, len(chosen), AT_A_TIME)]
    with part.open("a", encoding="utf-8") as file:
        for number in track(range(done, len(groups)), description="asking"):
            torch.manual_seed(seed * 1_000_003 + number)
            found = _asked(groups[number], *models, each=each, least=least, window=window)
            file.write(json.dumps([asdict(paragraph) for paragraph in found]) + "\n")
            file.flush()
    paragraphs = list(_paragraphs(part))
    data = json.dumps(as_squad(paragraphs), ensure_ascii=False).encode()
    whole = output.with_name(output.name + ".whole")
    whole.write_bytes(gzip.compress(data, mtime=0) if output.suffix == ".gz" else data)
    whole.replace(output)
    part.unlink()
    count = sum(len(paragraph.questions) for paragraph in paragraphs)
    typer.echo(f"saved {output}: {count} questions about {len(paragraphs)} of {len(chosen)} passages")


def as_squad(paragraphs: list[Paragraph]) -> dict[str, Any]:
    """Paragraphs in the SQuAD v1.1 format, an article each."""
    return {
        "version": "1.1",
        "data": [
            {
                "title": paragraph.title,
                "paragraphs": [
                    {
                        "context": paragraph.text,
                        "qas": [
                            {
                                "id": question.id,
                                "question": question.text,
                                "answers": [{"text": text, "answer_start": start} for text, start in question.answers],
                            }
                            for question in paragraph.questions
                        ],
                    }
                ],
            }
            for paragraph in paragraphs
        ],
    }


def _name(title: str) -> str:
    """An article's title, written alike in all files."""
    return title.replace("_", " ").casefold()


def _loaded(asker: str, teacher: str) -> tuple[Any, ...]:
    """Both models with their tokenizers, on the accelerator where there is one."""
    place: dict[str, Any] = {"dtype": torch.bfloat16 if fast_bf16() else torch.float32}
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    for name, model in (("asker", asker), ("teacher", teacher)):
        if keeps(model):
            msg = f"{name} {model} is a split reader; expected one that reads question and passage together"
            raise ModelError(msg)
    writer = BTRForConditionalGeneration.from_reader(asker, **place).eval().to(device)
    reader = BTRForQuestionAnswering.from_reader(teacher, **place).eval().to(device)
    return writer, AutoTokenizer.from_pretrained(asker), reader, AutoTokenizer.from_pretrained(teacher)


def _asked(
    passages: list[WikiPassage],
    asker: Any,
    its: Any,
    teacher: Any,
    theirs: Any,
    *,
    each: int,
    least: float,
    window: int,
) -> list[Paragraph]:
    """The passages with the questions that are kept."""
    texts = [one.text for one in passages]
    written = write_questions(asker, its, texts, each=each, window=window)
    paragraphs = [
        Paragraph(
            one.title, one.text, tuple(Question(f"{one.id}/{number}", text, ()) for number, text in enumerate(found))
        )
        for one, found in zip(passages, written, strict=True)
    ]
    return answer_questions(teacher, theirs, paragraphs, least=least, window=window)


def _begun(part: Path, settings: str) -> int:
    """Groups of passages that an earlier run has done; a line that it did not finish is taken away."""
    if not part.exists():
        part.write_text(settings + "\n", encoding="utf-8")
        return 0
    first, *lines = part.read_text(encoding="utf-8").split("\n")
    if first != settings:
        msg = f"{part} holds questions of another run (other passages, models or settings): move it away"
        raise DataError(msg)
    whole = lines[:-1]  # behind the last line feed stands what was broken off, or nothing
    part.write_text("\n".join([first, *whole, ""]), encoding="utf-8")
    return len(whole)


def _paragraphs(part: Path) -> Iterator[Paragraph]:
    for line in part.read_text(encoding="utf-8").split("\n")[1:-1]:
        for one in json.loads(line):
            asked = (Question(q["id"], q["text"], tuple(map(tuple, q["answers"]))) for q in one["questions"])
            yield Paragraph(one["title"], one["text"], tuple(asked))
