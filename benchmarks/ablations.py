# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
What each part of stage 3 is worth: the same few steps with one thing changed.

Measured on articles of the training file that are held out, gold paragraph; never on a development set. With
`--writes`, answers are written from five of their paragraphs, as they are and with a fifth of the tokens merged.

    python benchmarks/ablations.py --base decomposed --teacher teacher --data train-v1.1.json --output ablations.json
"""

import argparse
import dataclasses
import json
import random
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from btr_cli.benchmark import Task, gold, machine, retrieved, score
from btr_cli.figures import check_output
from btr_cli.pipelines import ANSWERS
from btr_cli.squad import corpus, drawn
from btr_cli.terminal import safe_output
from btr_haystack import binarise
from btr_haystack.default import model_source
from btr_haystack.model import Binariser
from btr_haystack.squad import read_squad
from btr_haystack.training.stages import StageSettings, run_stage, split_articles
from btr_haystack.training.trainer import Weights
from haystack_integrations.components.readers.btr import BTRGenerativeReader, BTRReader

MERGED = 0.2  # of the tokens, before the decoder and in it
PASSAGES = 5  # that a written answer is written from

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no recovery loss": {"weights": Weights(recovery=0)},
    "no distillation of states": {"weights": Weights(distillation=0)},
    "states of all tokens (r = 1)": {"weights": Weights(attended=1)},
    "no imitation of spans": {"weights": Weights(imitation=0)},
    "neither distillation nor imitation": {"weights": Weights(distillation=0, imitation=0)},
    "passages do not compete": {"weights": Weights(shared=0)},
    "no wrong passages": {"negatives": 0.0},
    "lower layers frozen": {"frozen_lower": True},
    "Muon": {"optimizer": "muon"},
    "k = 4": {"k": 4},
    "k = 5": {"k": 5},
    "k = 7": {"k": 7},
    "no token prior": {},
    "codes not turned": {},
    "codes not learnt": {},
    "prior alone, no bits": {"bits": 0},
    "64 bits": {"bits": 64},
    "128 bits, cut to 64 in half of the steps": {"nested": (64,)},
    "256 bits": {"bits": 256},
    "512 bits": {"bits": 512},
    "sign code (the paper's), 512 bits": {"code": "sign", "bits": 512},
    "scale stored": {"scale": "stored"},
    "merged in training": {"merged_across": MERGED},
}


def mean_alone(x: Tensor) -> Tensor:
    """Instead of `binarise.with_one`: features that tell nothing of the token, so that the prior is the mean state."""
    return F.pad(torch.zeros_like(x), (0, 1), value=1.0)


def principal_axes(z: Tensor, rounds: int = 0) -> Tensor:  # noqa: ARG001
    """Instead of `binarise.itq`: no rotation."""
    return torch.eye(z.shape[1])


def fitted_for_good(binariser: Binariser, *sample: Tensor) -> None:
    """Instead of `Binariser.fit`: the closed form, which training then leaves alone."""
    FIT(binariser, *sample)
    binariser.requires_grad_(False)


FIT = Binariser.fit
CHANGES: dict[str, tuple[Any, str, Any]] = {
    "no token prior": (binarise, "with_one", mean_alone),
    "codes not turned": (binarise, "itq", principal_axes),
    "codes not learnt": (Binariser, "fit", fitted_for_good),
}


def changed(name: str) -> AbstractContextManager[Any]:
    """What a variant changes in the method itself; most change settings alone."""
    return patch.object(*CHANGES[name]) if name in CHANGES else nullcontext()


def found(model: str, task: Task, label: str) -> dict[str, float]:
    """Exact match and F1 in percent of spans."""
    return score(BTRReader(model, **ANSWERS), task, label)


def written(model: str, task: Task, label: str) -> dict[str, float]:
    """The same of written answers, and of answers written from merged tokens."""
    plain = score(BTRGenerativeReader(model), task, label)
    merged = score(BTRGenerativeReader(model, merged_across=MERGED), task, f"{label}, merged")
    return plain | {f"{figure}_merged": value for figure, value in merged.items()}


def main() -> None:
    """Print a line a variant; write the figures as JSON after each, and go on from them when started again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of a decomposed reader")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--validation", type=float, default=0.02, help="share of the articles held out")
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writes", action="store_true", help="a decoder is trained, too: the base's, or --decoder's")
    parser.add_argument("--decoder", help="model whose decoder the base gets")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    check_output(options.output)
    if not options.writes and options.only == list(VARIANTS):
        options.only.remove("merged in training")
    if options.decoder and not options.writes:
        parser.error(f"--decoder is {options.decoder}, but nothing is written: give --writes, too")
    if not options.writes and "merged in training" in options.only:
        parser.error("'merged in training' changes what the decoder sees: give --writes, and a base that has one")

    common = StageSettings(
        stage="binarised", base=options.base, output="", data=(options.data,), teacher=model_source(options.teacher),
        steps=options.steps, groups=options.groups, learning_rate=options.learning_rate, optimizer="adamw",
        head_learning_rate=options.learning_rate, warmup=options.steps // 5, validation=options.validation,
        seed=options.seed, save_every=10**9, weights=Weights(writing=float(options.writes)),
        decoder=model_source(options.decoder) if options.decoder else None,
    )  # fmt: skip
    _, held_out = split_articles(read_squad(options.data), common.validation, common.seed)
    random.Random(options.seed).shuffle(held_out)  # noqa: S311
    asked = drawn(held_out, options.sample, options.seed)
    task = retrieved(asked, corpus(held_out), PASSAGES) if options.writes else gold(asked)
    told: dict[str, Any] = {name: Path(getattr(options, name) or "").name for name in ("base", "data", "decoder")}
    told |= {name: getattr(options, name) for name in ("steps", "groups", "learning_rate", "validation", "seed")}
    told |= {"writes": options.writes, "questions": len(task), "optimizer": common.optimizer, "warmup": common.warmup}
    rows: dict[str, Any] = {}
    if options.output and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        rows = before["rows"]
        before = {"writes": False, "decoder": ""} | before  # of figures made before there was a choice
        if differing := {name: (before.get(name), value) for name, value in told.items() if before.get(name) != value}:
            parser.error(
                f"{options.output} has figures of other settings (there, here): {differing}; give another file"
            )
    teacher = score(BTRReader(options.teacher, **ANSWERS), task, "teacher")
    for name in options.only:
        if name in rows:
            continue
        variant = VARIANTS[name]
        if "weights" in variant:
            variant = {**variant, "weights": dataclasses.replace(variant["weights"], writing=common.weights.writing)}
        with tempfile.TemporaryDirectory() as folder, changed(name):
            run_stage(dataclasses.replace(common, output=folder, **variant))
            rows[name] = (written if options.writes else found)(folder, task, name)
        print(f"{name}: " + ", ".join(f"{figure} {value:.1f}" for figure, value in rows[name].items()), flush=True)
        if options.output:
            options.output.write_text(
                json.dumps({"machine": machine(), **told, "teacher": teacher, "rows": rows}, indent=1) + "\n",
                encoding="utf-8",
            )


if __name__ == "__main__":
    with safe_output():
        main()
