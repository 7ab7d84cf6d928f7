# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""One stage of training, from files to a saved model; the same on CPU and GPU."""

import dataclasses
import hashlib
import json
import logging
import math
import random
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from btr_haystack._transformers import TrainingArguments
from btr_haystack.config import BTRConfig
from btr_haystack.digest import digest_of_model
from btr_haystack.errors import DataError
from btr_haystack.fit import fit_codes
from btr_haystack.forms import form_of
from btr_haystack.generative import BTRForConditionalGeneration
from btr_haystack.merge import MOST_MERGED
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.model_files import config_of, tokenizer_of
from btr_haystack.squad import SQUAD_FORMS, Paragraph, merged
from btr_haystack.training.asker import asking
from btr_haystack.training.data import PairDataset, check_window, collate
from btr_haystack.training.files import read_paragraphs
from btr_haystack.training.optimizer import new_optimizer
from btr_haystack.training.trainer import ReaderTrainer, Weights
from btr_haystack.windows import frame_of

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
CONTENTS = "contents"  # in it: digests of models and files
OPTIMIZERS = ("muon", "adamw")
STAGES = ("teacher", "decomposed", "binarised", "asker")
SPLIT_STAGES = ("decomposed", "binarised")
USUAL: dict[str, Any] = {"k": 6, "bits": 128, "code": "residual", "scale": "predicted", "stop_tokens": ()}


@dataclass(frozen=True)
class StageSettings:
    """
    Everything that decides what a stage does; saved beside the model as training.json.

    :param stage: "teacher" (joint reader), "decomposed" (split after k layers), "binarised" (split and coded), "asker"
        (a joint reader that writes the questions a passage answers, for `write_questions`).
    :param base: folder or hub id to start from: an encoder, a reader, or the model of the stage before.
    :param output: folder of the new model; its last checkpoint stands in it, too.
    :param data: files of SQuAD, of Natural Questions with paragraphs (QED) or with passages (DPR, FiD), or of FEVER
        with evidence, as `read_paragraphs` reads them; questions without answers train the reader to find none. For an
        asker of SQuAD alone: the others hold prompts and claims.
    :param teacher: the teacher's folder; needed by stages 2 and 3 where they imitate it or are distilled (`Weights`);
        an asker has none.
    :param decoder: folder or hub id of a model whose decoder the base gets, to be trained to write (`Weights.writing`);
        None where the base has one.
    :param k: number of lower layers (stages 2 and 3); None for the base's, 6 where it is not split.
    :param bits: bits a token (stage 3); None for the base's, 128 where it has none.
    :param code: "residual" or "sign"; None for the base's, "residual" where it has none.
    :param nested: numbers of bits below `bits` that codes can be cut to afterwards; each step draws one, or all bits.
    :param coded_share: share of a window's tokens that keep bits, those of which the prior tells least (stage 3); None
        for the base's.
    :param nested_shares: further shares that stores can have; each step draws one, or `coded_share`.
    :param scale: "predicted" or "stored"; None for the base's, "predicted" where it has none.
    :param stop_tokens: token ids without bits; None for the base's.
    :param word_match: mark the tokens that question and passage share (stages 2 and 3); marks of the base stay anyway.
    :param frozen_lower: leave the lower layers as the base has them (stages 2 and 3).
    :param decoder_only: train the decoder alone, by the writing loss. Split, codes, share of bits, marks and all
        weights that read passages are the base's, whatever else is said here; its stores stay good.
    :param merged_across: share of a question's tokens that is merged before the decoder and again in it while it learns
        to write (`Compression.across`), as a reader does that is to be compressed at run time.
    :param steps: optimiser steps.
    :param groups: groups of passages a step, on each device.
    :param passages: passages a group; an asker's has one, whatever is said here.
    :param questions: questions a passage, at most.
    :param negatives: wrong passages a question, on average; an asker has none.
    :param window: most tokens of a passage.
    :param optimizer: "muon" or "adamw" (`new_optimizer`); None for "muon" where bfloat16 is fast, in which it works.
    :param learning_rate: of the encoder.
    :param head_learning_rate: of span head and codes.
    :param warmup: steps over which the rates rise.
    :param decay: share of the steps, the last ones, over which the rates fall linearly to 0; before, they stay.
    :param validation: share of the articles held out; their loss is reported.
    :param save_every: steps between checkpoints.
    :param bf16: compute in bfloat16 (autocast); None where the machine does so fast.
    :param seed: of everything random.
    :param weights: of the losses.
    """

    stage: str
    base: str
    output: str
    data: tuple[str, ...]
    teacher: str | None = None
    decoder: str | None = None
    k: int | None = None
    bits: int | None = None
    nested: tuple[int, ...] = ()
    coded_share: float | None = None
    nested_shares: tuple[float, ...] = ()
    code: str | None = None
    scale: str | None = None
    stop_tokens: tuple[int, ...] | None = None
    word_match: bool = True
    frozen_lower: bool = False
    decoder_only: bool = False
    merged_across: float = 0.0
    steps: int = 4000
    groups: int = 1
    passages: int = 4
    questions: int = 4
    negatives: float = 1.0
    window: int = 256
    optimizer: str | None = None
    learning_rate: float = 3e-4
    head_learning_rate: float = 5e-4
    warmup: int = 50
    decay: float = 1.0
    validation: float = 0.02
    save_every: int = 200
    bf16: bool | None = None
    seed: int = 0
    weights: Weights = dataclasses.field(default_factory=Weights)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, before anything is loaded."""
        if self.stage not in STAGES:
            msg = f"stage is {self.stage!r}; expected one of {', '.join(STAGES)}"
            raise ValueError(msg)
        if self.optimizer not in (None, *OPTIMIZERS):
            msg = f"optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}"
            raise ValueError(msg)
        for name in ("steps", "groups", "passages", "questions", "window", "save_every"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}; expected 1 or more"
                raise ValueError(msg)
        for name in ("learning_rate", "head_learning_rate", "warmup"):
            if not 0 <= getattr(self, name) < math.inf:
                msg = f"{name} is {getattr(self, name)}; expected a finite number, 0 or more"
                raise ValueError(msg)
        if not self.negatives >= 0:
            msg = f"negatives is {self.negatives}; expected wrong passages a question, 0 or more"
            raise ValueError(msg)
        if not 0 <= self.merged_across <= MOST_MERGED:
            msg = f"merged_across is {self.merged_across}; expected a share of the tokens from 0 to {MOST_MERGED}"
            raise ValueError(msg)
        if self.merged_across and not self.weights.writing:
            msg = (
                f"merged_across is {self.merged_across} but weights.writing is 0: nothing is written; give it a weight"
            )
            raise ValueError(msg)
        if not 0 <= self.validation < 1:
            msg = f"validation is {self.validation}; expected a share of the articles from 0 to less than 1"
            raise ValueError(msg)
        if not 0 <= self.weights.attended <= 1:
            msg = f"attended is {self.weights.attended}; expected a share of the tokens from 0 to 1"
            raise ValueError(msg)
        if any(bits < 1 or (self.bits is not None and bits >= self.bits) for bits in self.nested):
            msg = f"nested is {self.nested}; expected numbers of bits above 0 and below bits = {self.bits}"
            raise ValueError(msg)
        if any(not 0 <= share <= 1 for share in (self.coded_share or 0, *self.nested_shares)):
            msg = (
                f"coded_share is {self.coded_share} and nested_shares is {self.nested_shares}; "
                "expected shares of the tokens from 0 to 1"
            )
            raise ValueError(msg)
        if not 0 < self.decay <= 1:
            msg = f"decay is {self.decay}; expected a share of the steps above 0, up to 1"
            raise ValueError(msg)
        if self.decoder is not None and not self.weights.writing:
            msg = f"decoder is {self.decoder!r} but weights.writing is 0: nothing would train it; give it a weight"
            raise ValueError(msg)
        if self.decoder_only and not self.weights.writing:
            msg = "decoder_only is on but weights.writing is 0: nothing would be trained; give it a weight"
            raise ValueError(msg)
        if self.stage == "asker" and not self.weights.writing:
            msg = "stage 'asker' learns to write questions but weights.writing is 0; give it a weight"
            raise ValueError(msg)
        for name in ("teacher", "decoder_only", "frozen_lower"):
            if self.stage == "asker" and getattr(self, name):
                msg = f"{name} is {getattr(self, name)!r}, which has no meaning for stage 'asker'; leave it out"
                raise ValueError(msg)
        if self.stage in SPLIT_STAGES and self.teacher is None and self.weights.teacher and not self.decoder_only:
            msg = (
                f"stage {self.stage!r} imitates a teacher: give the folder of one (made by stage 'teacher'), "
                "or set the weights of imitation and distillation to 0"
            )
            raise ValueError(msg)
        if not self.data:
            msg = "no training file given; expected at least one of SQuAD, QED or FEVER"
            raise ValueError(msg)


def run_stage(settings: StageSettings) -> Path:
    """
    Train, or go on training, one stage.

    :param settings: see `StageSettings`; the same settings resume from the last checkpoint in the output folder.
    :returns: the output folder: config.json, model.safetensors (float16), tokenizer, training.json.
    :raises DataError: where the files hold nothing to train on.
    :raises ModelError: where the base cannot be split.
    :raises ValueError: where the output folder belongs to a stage with other settings, models or data, or the encoder
        has too few positions for the window.
    """
    settings = _resolved(settings)
    output = Path(settings.output)
    torch.manual_seed(settings.seed)
    if settings.stage == "asker" and (others := [file for file in settings.data if form_of(file) not in SQUAD_FORMS]):
        msg = f"stage 'asker' learns from questions in the SQuAD format; leave out {', '.join(others)}"
        raise DataError(msg)
    paragraphs = merged(paragraph for file in settings.data for paragraph in read_paragraphs(file))
    contents = _contents(settings)
    _check_resumable(output, settings, contents)
    asks = settings.stage == "asker"
    if asks:
        paragraphs = asking(paragraphs)
    training, held_out = split_articles(paragraphs, settings.validation, settings.seed)
    if not any(paragraph.questions for paragraph in training):
        msg = f"no question to train on in {', '.join(settings.data)} (validation share {settings.validation})"
        raise DataError(msg)
    tokenizer = tokenizer_of(settings.base)
    model = _start(settings, tokenizer, [paragraph.text for paragraph in training])
    teacher = None
    if settings.teacher is not None and settings.weights.teacher and not settings.decoder_only:
        teacher = BTRForQuestionAnswering.from_reader(settings.teacher, dtype=torch.float32)
    frame, pad = frame_of(tokenizer), tokenizer.pad_token_id or 0
    check_window(model, frame, settings.window)
    groups = partial(
        PairDataset,
        tokenizer=tokenizer,
        frame=frame,
        passages=1 if asks else settings.passages,
        questions=settings.questions,
        negatives=0.0 if asks else settings.negatives,
        window=settings.window,
        max_query_length=model.config.max_query_length,
        writes=settings.weights.writing > 0,
        seed=settings.seed,
    )
    validation = groups(held_out, length=40) if any(paragraph.questions for paragraph in held_out) else None
    decay_steps = max(min(round(settings.steps * settings.decay), settings.steps - settings.warmup), 0)
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.groups,
        per_device_eval_batch_size=settings.groups,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": decay_steps, "decay_type": "linear"},
        warmup_steps=settings.warmup,
        max_grad_norm=1.0,
        bf16=fast_bf16() if settings.bf16 is None else settings.bf16,
        use_cpu=not torch.accelerator.is_available(),
        logging_steps=50,
        eval_strategy="steps" if validation else "no",
        eval_steps=500,
        prediction_loss_only=True,
        label_names=["answers"],
        save_steps=settings.save_every,
        save_total_limit=1,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=sys.stderr is None or not sys.stderr.isatty(),  # a bar of progress is for a terminal
        seed=settings.seed,
        dataloader_num_workers=0,
    )
    if arguments.n_gpu > 1:
        msg = f"there are {arguments.n_gpu} GPUs: start with torchrun --nproc_per_node {arguments.n_gpu}, or show one"
        raise ValueError(msg)
    dataset = groups(training, length=settings.steps * settings.groups * arguments.world_size)
    trainer = ReaderTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=validation,
        data_collator=partial(collate, pad=pad),
        optimizers=(_optimizer(model, settings), None),
        teacher=teacher,
        frame=frame,
        pad=pad,
        weights=settings.weights,
        nested=settings.nested if settings.stage == "binarised" else (),
        nested_shares=settings.nested_shares if settings.stage == "binarised" else (),
        merged_across=settings.merged_across,
    )
    output.mkdir(parents=True, exist_ok=True)
    if trainer.is_world_process_zero() and not (output / SETTINGS_FILE).is_file():
        begun = output / f"{SETTINGS_FILE}.part"
        begun.write_text(json.dumps(_shareable(settings) | {CONTENTS: contents}, indent=1) + "\n", encoding="utf-8")
        begun.replace(output / SETTINGS_FILE)
    trainer.train(resume_from_checkpoint=last_checkpoint(output))
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        if not settings.decoder_only or _fits_half(model):
            model.to(torch.float16)
        model.save_pretrained(output)
        for name in ("is_local", "local_files_only"):  # of how it was loaded here
            tokenizer.init_kwargs.pop(name, None)
        tokenizer.save_pretrained(output)
        record = {"settings": _shareable(settings), "history": history}
        (output / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return output


def _resolved(settings: StageSettings) -> StageSettings:
    """The settings, the base's in place of those that are not given, or the usual ones where it has none."""
    base = config_of(settings.base)
    theirs = {name: getattr(base, name, None) for name in USUAL} if getattr(base, "k", 0) else {}
    chosen: dict[str, Any] = {}
    for name, usual in USUAL.items():
        found = theirs.get(name)
        chosen[name] = next(one for one in (getattr(settings, name), found, usual) if one is not None)
    return dataclasses.replace(settings, **chosen | {"stop_tokens": tuple(chosen["stop_tokens"])})


def _contents(settings: StageSettings) -> dict[str, Any]:
    """Digests of models and files, which may change under the same name."""
    models = {name: getattr(settings, name) for name in ("base", "teacher", "decoder")}
    digests = {name: digest_of_model(model) if model else None for name, model in models.items()}
    return digests | {"data": [hashlib.blake2b(Path(file).read_bytes()).hexdigest()[:16] for file in settings.data]}


def _check_resumable(output: Path, settings: StageSettings, contents: dict[str, Any]) -> None:
    """Refuse to go on in a folder that other settings began, or other models or files of the same names."""
    begun = output / SETTINGS_FILE
    if not begun.is_file():
        return
    now = json.loads(json.dumps(_shareable(settings)))
    try:
        before = json.loads(begun.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{begun}: not the settings of a stage ({error}); move {output} away, or give another output folder"
        raise DataError(msg) from error
    weights = dataclasses.asdict(Weights()) | before.get("weights", {})
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    defaults |= {name: list(value) for name, value in defaults.items() if isinstance(value, tuple)}  # as JSON has them
    began = before.get(CONTENTS, contents)
    before = defaults | before | {"weights": weights}
    differing = [name for name in now if before.get(name) != now[name] and name not in ("steps", "save_every")]
    if differing:
        changes = ", ".join(f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in differing)
        msg = (
            f"{output} holds a stage that began otherwise: {changes}. Give the same settings, or another output folder"
        )
        raise ValueError(msg)
    if changed := [name for name, digest in contents.items() if began.get(name) != digest]:
        msg = (
            f"{output} holds a stage that began with other contents of {' and '.join(changed)}, under the same name. "
            "Give another output folder"
        )
        raise ValueError(msg)


def _shareable(settings: StageSettings) -> dict[str, Any]:
    """The settings, with files and folders by their names alone."""
    paths = {name: getattr(settings, name) for name in ("base", "output", "teacher", "decoder")}
    names = {field: Path(path).name if path else None for field, path in paths.items()}
    return dataclasses.asdict(settings) | names | {"data": [Path(file).name for file in settings.data]}


def fast_bf16() -> bool:
    """Whether this machine computes in bfloat16 faster than in float32; a CPU without instructions for it is slower."""
    if torch.accelerator.is_available():
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def last_checkpoint(output: Path) -> str | None:
    """
    The newest whole checkpoint: one whose writing was cut off lacks a file and is passed over.

    :param output: the stage's folder; it need not exist.
    :returns: the checkpoint's folder, None where there is none.
    """
    needed = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
    whole = [folder for folder in output.glob("checkpoint-*") if all((folder / name).is_file() for name in needed)]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


def split_articles(paragraphs: list[Paragraph], share: float, seed: int) -> tuple[list[Paragraph], list[Paragraph]]:
    """
    Hold out a share of the articles, whole.

    :returns: the paragraphs to train on, and those held out.
    """
    titles = sorted({paragraph.title for paragraph in paragraphs})
    random.Random(seed).shuffle(titles)  # noqa: S311
    chosen = set(titles[: round(len(titles) * share)])
    return [p for p in paragraphs if p.title not in chosen], [p for p in paragraphs if p.title in chosen]


def _start(settings: StageSettings, tokenizer: Any, texts: list[str]) -> BTRForQuestionAnswering:
    """The model a stage begins with: without dropout, in float32, its codes fitted where they are new."""
    split = settings.stage in SPLIT_STAGES
    bits = settings.bits if settings.stage == "binarised" else None
    stop_tokens = list(settings.stop_tokens or ())
    fields: dict[str, Any] = {"code": settings.code, "scale": settings.scale, "stop_tokens": stop_tokens}
    if settings.stage == "binarised" and settings.coded_share is not None:
        fields["coded_share"] = settings.coded_share
    if split and settings.word_match:
        fields["word_match"] = True
    writes = settings.weights.writing > 0 and settings.decoder is None
    kind = BTRForConditionalGeneration if writes else BTRForQuestionAnswering
    if settings.decoder_only and isinstance(config_of(settings.base), BTRConfig):
        model = kind.from_pretrained(settings.base, dtype=torch.float32)
    else:
        model = kind.from_reader(
            settings.base, k=(settings.k or 0) if split else 0, bits=bits, settings=fields, dtype=torch.float32
        )
    if settings.decoder is not None:
        model = BTRForConditionalGeneration.with_decoder_of(settings.decoder, model, dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.get_input_embeddings().requires_grad_(False)
    if isinstance(model, BTRForConditionalGeneration):
        model.encoder.lm_head.requires_grad_(False)
        model.encoder.decoder.embed_tokens.requires_grad_(False)
    for name, weight in model.named_parameters():
        if "relative_attention_bias" in name:  # a mask that needs no gradient lets attention run fused
            weight.requires_grad_(False)
    if settings.decoder_only:
        for name, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad and name.startswith("encoder.decoder."))
    if settings.frozen_lower:
        for layer in model.family.layers[: model.config.k]:
            layer.requires_grad_(False)
    if model.binariser is not None and not model.binariser.fitted:
        sample = random.Random(settings.seed).sample(texts, min(len(texts), 1000))  # noqa: S311
        error = fit_codes(model, tokenizer, sample, window=settings.window)
        logger.info("codes fitted in closed form: relative squared error %.3f", error)
    return model


def _fits_half(model: nn.Module) -> bool:
    """Whether half precision loses nothing of the weights that were not trained."""
    fixed = (weight for weight in model.parameters() if not weight.requires_grad)
    return all(torch.equal(weight, weight.half().float()) for weight in fixed)


def _optimizer(model: BTRForQuestionAnswering, settings: StageSettings) -> torch.optim.Optimizer:
    new = [*model.qa_outputs.parameters(), *(model.binariser.parameters() if model.binariser is not None else [])]
    kind = settings.optimizer or ("muon" if fast_bf16() else "adamw")
    return new_optimizer(
        model, new, kind=kind, learning_rate=settings.learning_rate,
        new_learning_rate=settings.head_learning_rate,
    )  # fmt: skip
