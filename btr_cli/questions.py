# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr questions`: a training file for passages that nobody has asked about."""

import gzip
import json
import random
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from btr_cli.answers import digest
from btr_cli.jsonlines import JsonLines
from btr_cli.pipelines import keeps, sampled
from btr_cli.terminal import tracked
from btr_haystack.default import DEFAULT_TEACHER, model_source
from btr_haystack.digest import digest_of_model
from btr_haystack.errors import DataError, ModelError
from btr_haystack.generative import BTRForConditionalGeneration
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.model_files import tokenizer_of
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.tasks import WikiPassage, read_passages
from btr_haystack.training.asker import answer_questions, write_questions
from btr_haystack.training.data import check_window
from btr_haystack.training.stages import fast_bf16
from btr_haystack.windows import frame_of

AT_A_TIME = 64  # passages


def questions(
    passages: Annotated[
        Path, typer.Argument(help="Passages: id, text and title, split by tabs, plain or gzip; all held in memory.")
    ],
    asker: Annotated[str, typer.Option(help="Folder of the asker: btr train asker.")],
    output: Annotated[Path, typer.Option(help="SQuAD-format file to be written, with gzip where it ends in .gz.")],
    teacher: Annotated[str, typer.Option(help="An ordinary reader, which answers.")] = DEFAULT_TEACHER,
    each: Annotated[int, typer.Option(min=1, help="Questions sampled a passage.")] = 4,
    least: Annotated[float, typer.Option(min=0, max=1, help="Probability that an answer must have.")] = 0.1,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="SQuAD-format file, to be tested on: articles of its titles are left out; again."),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Passages, drawn with the seed; default: all.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Tokens of a passage that are read, its first ones.")] = 256,
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
    source, taught = model_source(asker), model_source(teacher)
    tested = {_name(paragraph.title) for file in without or () for paragraph in read_squad(file)} - {""}
    every = list(read_passages(passages))
    allowed = [one for one in every if _name(one.title) not in tested]
    chosen = sampled(allowed, sample, seed)
    if without:
        typer.echo(f"left out {len(every) - len(allowed)} of {len(every)} passages, of articles to be tested on")
    if not chosen:
        msg = f"{passages}: each of {len(every)} passages is of an article that is left out; give others"
        raise DataError(msg)
    models = _loaded(source, taught, window)
    settings = {
        "asker": digest_of_model(source), "teacher": digest_of_model(taught), "each": each, "least": least,
        "window": window, "seed": seed, "at_a_time": AT_A_TIME, "passages": digest(chosen),
    }  # fmt: skip
    part = output.with_name(output.name + ".part")
    done = JsonLines(part, settings, "asked passage")
    order = sorted(range(len(chosen)), key=lambda i: -len(chosen[i].text))  # so that little of a group is padding
    groups = [order[first : first + AT_A_TIME] for first in range(0, len(order), AT_A_TIME)]
    for number in tracked(range(len(done.values), len(groups)), "asking"):
        torch.manual_seed(random.Random(f"{seed}/{number}").getrandbits(63))  # noqa: S311
        group = [chosen[i] for i in groups[number]]
        done.add(_asked(group, *models, each=each, least=least, window=window, seed=seed))
    paragraphs = _paragraphs(done, [one.text for one in chosen])
    count = sum(len(paragraph.questions) for paragraph in paragraphs)
    if not count:
        msg = f"the teacher is sure of no answer: --least is {least}; give a lower one and move {part} away"
        raise DataError(msg)
    data = json.dumps(as_squad(paragraphs), ensure_ascii=False).encode("utf-8", "replace")
    whole = output.with_name(output.name + ".whole")
    whole.write_bytes(gzip.compress(data, mtime=0) if output.suffix == ".gz" else data)
    whole.replace(output)
    part.unlink()
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
    return unicodedata.normalize("NFC", title).replace("_", " ").strip().casefold()


def _loaded(asker: str, teacher: str, window: int) -> tuple[Any, ...]:
    """Both models with their tokenizers, on the accelerator where there is one."""
    for name, model in (("asker", asker), ("teacher", teacher)):
        if keeps(model):
            msg = f"{name} {model} is a split reader; expected one that reads question and passage together"
            raise ModelError(msg)
    place: dict[str, Any] = {"dtype": torch.bfloat16 if fast_bf16() else torch.float32}
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    found: list[Any] = []
    for kind, model in ((BTRForConditionalGeneration, asker), (BTRForQuestionAnswering, teacher)):
        tokenizer = tokenizer_of(model)
        loaded = kind.from_reader(model, **place).eval().to(device)
        check_window(loaded, frame_of(tokenizer), window)
        found += [loaded, tokenizer]
    return tuple(found)


def _asked(
    passages: list[WikiPassage],
    asker: BTRForConditionalGeneration,
    asker_tokenizer: Any,
    teacher: BTRForQuestionAnswering,
    teacher_tokenizer: Any,
    *,
    each: int,
    least: float,
    window: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The passages with the questions that are kept, as JSON can hold them."""
    texts = [one.text for one in passages]
    written = write_questions(asker, asker_tokenizer, texts, each=each, window=window)
    paragraphs = []
    for one, found in zip(passages, written, strict=True):
        asked = tuple(Question(f"{one.id}/{seed}/{number}", text, ()) for number, text in enumerate(found))
        paragraphs.append(Paragraph(one.title, one.text, asked))
    answered = answer_questions(teacher, teacher_tokenizer, paragraphs, least=least, window=window)
    return [asdict(paragraph) for paragraph in answered]


def _paragraphs(done: JsonLines, order: list[str]) -> list[Paragraph]:
    """What was asked, in the order of the passages' texts."""
    places = {text: place for place, text in enumerate(order)}
    found = []
    try:
        for one in (paragraph for group in done.values for paragraph in group):
            asked = [Question(q["id"], q["text"], tuple(map(tuple, q["answers"]))) for q in one["questions"]]
            found.append(Paragraph(one["title"], one["text"], tuple(asked)))
        return sorted(found, key=lambda paragraph: places[paragraph.text])
    except (KeyError, TypeError) as error:
        msg = f"{done.path} has lines that are not questions ({error!r}): move it away"
        raise DataError(msg) from error
