# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""`btr train`: one stage of training."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from btr_haystack.default import model_source
from btr_haystack.training.stages import StageSettings, Weights, run_stage

OF_CODES = ("bits", "nested", "coded_share", "nested_share", "code", "scale", "stop_token", "no_stop_tokens")


def train(
    stage: Annotated[str, typer.Argument(help="teacher, decomposed, binarised, or asker")],
    base: Annotated[str, typer.Option(help="Folder or hub id to start from.")],
    output: Annotated[Path, typer.Option(help="Folder of the new model; resumes from the checkpoints in it.")],
    data: Annotated[
        list[Path], typer.Option(help="SQuAD (rows, too), QED, DPR, FiD or FEVER: JSON, gzip, Parquet; again.")
    ],
    teacher: Annotated[Path | None, typer.Option(help="Folder of the teacher (stages 2 and 3).")] = None,
    decoder: Annotated[str | None, typer.Option(help="Model whose decoder the base gets; see --writing.")] = None,
    k: Annotated[
        int | None, typer.Option(help="Lower layers, which see a passage alone; default: the base's, or 6.")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Bits a token (stage 3); default: the base's, or 128.")] = None,
    nested: Annotated[list[int] | None, typer.Option(help="Bits that codes may be cut to; may be given again.")] = None,
    coded_share: Annotated[
        float | None, typer.Option(help="Share of the tokens that keep bits (stage 3); default: the base's.")
    ] = None,
    nested_share: Annotated[
        list[float] | None, typer.Option(help="Further such share that stores can have; may be given again.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(help="residual, or sign (the paper's); default: the base's, or residual.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="predicted, or stored in a byte a token; default: the base's, or predicted.")
    ] = None,
    stop_token: Annotated[
        list[int] | None, typer.Option(help="Token id without bits (stage 3); again. Default: the base's.")
    ] = None,
    no_stop_tokens: Annotated[
        bool, typer.Option("--no-stop-tokens", help="Bits for the base's stop tokens, too.")
    ] = False,
    word_match: Annotated[bool, typer.Option(help="Mark the tokens that question and passage share.")] = True,
    frozen_lower: Annotated[bool, typer.Option("--frozen-lower", help="Leave the lower layers as they are.")] = False,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Train the decoder alone; see --writing.")
    ] = False,
    merged_across: Annotated[
        float, typer.Option(help="Share of the tokens merged before the decoder and in it; see --writing.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4000,
    groups: Annotated[int, typer.Option(help="Groups of passages a step and device.")] = 1,
    passages: Annotated[int, typer.Option(help="Passages a group.")] = 4,
    questions: Annotated[int, typer.Option(help="Questions a passage, at most.")] = 4,
    negatives: Annotated[float, typer.Option(help="Wrong passages a question, on average.")] = 1.0,
    window: Annotated[int, typer.Option(help="Most tokens of a passage.")] = 256,
    optimizer: Annotated[
        str | None, typer.Option(help="muon (its matrices) or adamw; muon by default where bfloat16 is fast.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Of the encoder.")] = 3e-4,
    head_learning_rate: Annotated[float, typer.Option(help="Of span head and codes.")] = 5e-4,
    warmup: Annotated[int, typer.Option(help="Steps over which the rates rise.")] = 50,
    decay: Annotated[float, typer.Option(help="Share of the steps over which the rates fall to 0.")] = 1.0,
    validation: Annotated[float, typer.Option(help="Share of the articles held out.")] = 0.02,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16; by default where it is fast.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    shared: Annotated[float, typer.Option(help="Weight: spans competing across passages.")] = Weights.shared,
    imitation: Annotated[float, typer.Option(help="Weight: the teacher's spans.")] = Weights.imitation,
    distillation: Annotated[float, typer.Option(help="Weight: the teacher's upper states.")] = Weights.distillation,
    attended: Annotated[float, typer.Option(help="Share of tokens that distillation looks at.")] = Weights.attended,
    recovery: Annotated[float, typer.Option(help="Weight: a state against its code.")] = Weights.recovery,
    writing: Annotated[float, typer.Option(help="Weight: answers written by the decoder.")] = Weights.writing,
    first_look: Annotated[float, typer.Option(help="Weight: spans after the first upper layer.")] = Weights.first_look,
) -> None:
    """
    Train a teacher, then decompose it, then binarise it; or an asker, for btr questions. Resumed when run again.
    """
    given = locals().copy()
    weights = Weights(**{field.name: given[field.name] for field in fields(Weights)})
    own = {field.name: given[field.name] for field in fields(StageSettings) if field.name in given}
    changed = {
        "base": model_source(base),
        "output": str(output),
        "data": tuple(map(str, data)),
        "teacher": model_source(str(teacher)) if teacher else None,
        "decoder": model_source(decoder) if decoder else None,
        "nested": tuple(nested or ()),
        "nested_shares": tuple(nested_share or ()),
        "stop_tokens": tuple(stop_token or ()) if stop_token or no_stop_tokens else None,
        "weights": weights,
    }
    settings = StageSettings(**{**own, **changed})
    for name in OF_CODES if stage != "binarised" else ():
        if given[name] is not None and given[name] is not False:
            msg = f"--{name.replace('_', '-')} is given, but stage {stage} makes no codes; expected stage binarised"
            raise ValueError(msg)
    typer.echo(f"saved {run_stage(settings)}")
