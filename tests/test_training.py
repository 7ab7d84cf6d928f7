# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import gzip
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, make_tokenizer, passage
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from btr_haystack import BTRForConditionalGeneration, BTRForQuestionAnswering, GenerativeReader, SplitReader, rows
from btr_haystack.errors import DataError, ModelError
from btr_haystack.generative import MERGE_EVERY, View, views_of
from btr_haystack.occurrences import trimmed
from btr_haystack.squad import Paragraph, Question, read_squad
from btr_haystack.training.asker import asking
from btr_haystack.training.data import PairDataset, collate
from btr_haystack.training.files import read_paragraphs
from btr_haystack.training.optimizer import new_optimizer
from btr_haystack.training.stages import StageSettings, run_stage, split_articles
from btr_haystack.training.trainer import Weights, places_of
from btr_haystack.windows import frame_of


def warnings_in(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def squad_file(tmp_path):
    """Two articles; the answer is always the second word behind the number."""
    data = []
    for title in ("Left", "Right", "Middle"):
        paragraphs = []
        for number in range(6):
            text = f"{title}: {passage(number)}"
            answer = passage(number).split()[2]
            question = {"id": f"{title}{number}", "question": f"What of {number}?"}
            found = [{"text": answer, "answer_start": text.index(answer)}]
            paragraphs.append({"context": text, "qas": [question | {"answers": found}]})
        paragraphs[0]["qas"].append({"id": title, "question": "None?", "answers": [], "is_impossible": True})
        data.append({"title": title, "paragraphs": paragraphs})
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"version": "v2.0", "data": data}).encode()))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_target_places_hold_the_answer(family, squad_file):
    tokenizer = make_tokenizer(family)
    frame = frame_of(tokenizer)
    dataset = PairDataset(read_squad(squad_file), tokenizer, frame, length=12, passages=3, negatives=1, window=256)
    answered = wrong = 0
    null_first = bool(frame.opening)
    for number in range(len(dataset)):
        batch = collate([dataset[number]], pad=tokenizer.pad_token_id)
        places = places_of(batch, frame, null_first=null_first, pad=tokenizer.pad_token_id)
        assert (places.allowed.sum(1) == places.inside.sum(1) + 1).all()
        for row, (first, last) in enumerate(places.targets.tolist()):
            assert places.allowed[row, first]
            if places.answered[row]:
                text = tokenizer.decode(places.ids[row, first : last + 1]).strip().lower()
                assert text in " ".join(passage(n).split()[2] for n in range(6)).lower()
                assert places.inside[row, first : last + 1].all()
                answered += 1
            else:
                assert first == last
                assert places.segments[row, first] == 0
                wrong += 1
    assert answered
    assert wrong


def test_groups_depend_on_seed_and_number_alone(squad_file):
    tokenizer = make_tokenizer("bert")
    paragraphs, frame = read_squad(squad_file), frame_of(tokenizer)
    one, same, other = (
        PairDataset(paragraphs, tokenizer, frame, length=40, passages=2, seed=seed) for seed in (0, 0, 1)
    )
    forward = [one[n] for n in range(40)]
    assert forward == [same[n] for n in reversed(range(40))][::-1]
    assert forward != [other[n] for n in range(40)]
    with pytest.raises(IndexError):
        one[40]


def test_epochs_of_different_length():
    """How many groups an epoch has depends on its order; none is left out, and none asked for that is not there."""
    rng, words = random.Random(0), [f"word{n}" for n in range(60)]  # noqa: S311
    paragraphs = [
        Paragraph(f"t{n}", " ".join(rng.choices(words, k=rng.randint(2, 9))), (Question(str(n), "which word?", ()),))
        for n in range(60)
    ]
    tokenizer = make_tokenizer("bert")
    dataset = PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=400, passages=4, questions=1)
    assert len({len(dataset._epoch(number)) for number in range(12)}) > 1
    groups, passages = [dataset[n] for n in range(400)], 0
    for epoch in range(3):
        size = len(dataset._epoch(epoch))
        assert sum(len(group.passages) for group in groups[passages : passages + size]) == 60
        passages += size


def test_wrong_passages_do_not_hold_the_answer():
    tokenizer = make_tokenizer("bert")
    twins = [Paragraph("t", "the same word", (Question("1", "q", (("word", 9),)),)) for _ in range(2)]
    dataset = PairDataset(twins, tokenizer, frame_of(tokenizer), length=3, passages=2, negatives=1)
    assert all(pair.start >= 0 for group in dataset for pair in group.pairs)


def test_articles_are_held_out_whole(squad_file):
    paragraphs = read_squad(squad_file)
    training, held_out = split_articles(paragraphs, 0.34, seed=0)
    assert len(training) + len(held_out) == len(paragraphs)
    assert not {p.title for p in training} & {p.title for p in held_out}
    assert held_out


def settings_for(stage, base, output, data, **changes):
    sizes = {"k": 1, "bits": 16, "steps": 6, "passages": 2, "questions": 1, "save_every": 3, "bf16": False, "warmup": 1}
    return StageSettings(
        stage=stage, base=str(base), output=str(output), data=(str(data),), validation=0.34, **sizes | changes
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"groups": 0}, "groups is 0; expected 1 or more"),
        ({"passages": 0}, "passages is 0; expected 1 or more"),
        ({"questions": -1}, "questions is -1; expected 1 or more"),
        ({"window": 0}, "window is 0; expected 1 or more"),
        ({"save_every": 0}, "save_every is 0; expected 1 or more"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected a finite number, 0 or more"),
        ({"warmup": -1}, "warmup is -1; expected a finite number, 0 or more"),
        ({"negatives": -0.5}, "negatives is -0.5; expected wrong passages a question, 0 or more"),
        ({"weights": Weights(attended=1.5)}, "attended is 1.5; expected a share of the tokens from 0 to 1"),
        ({"nested": (16,)}, r"nested is \(16,\); expected numbers of bits above 0 and below bits = 16"),
    ],
)
def test_settings_that_cannot_be(changes, told):
    with pytest.raises(ValueError, match=told):
        settings_for("teacher", "a", "b", "c", **changes)


def test_a_validation_share_that_leaves_nothing():
    with pytest.raises(ValueError, match="validation is 1; expected a share of the articles from 0 to less than 1"):
        StageSettings(stage="teacher", base="a", output="b", data=("c",), validation=1)


def test_a_window_that_the_encoder_has_no_positions_for(plain_reader, squad_file, tmp_path):
    settings = settings_for("teacher", plain_reader("bert"), tmp_path / "out", squad_file, window=448)
    with pytest.raises(ValueError, match=r"window is 448, but .* only 512 positions.* 447 tokens or fewer"):
        run_stage(settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_three_stages_make_a_reader(family, plain_reader, squad_file, tmp_path):
    teacher, decomposed, binarised = tmp_path / "teacher", tmp_path / "decomposed", tmp_path / "binarised"
    run_stage(settings_for("teacher", plain_reader(family), teacher, squad_file))
    run_stage(settings_for("decomposed", teacher, decomposed, squad_file, teacher=str(teacher)))
    run_stage(settings_for("binarised", decomposed, binarised, squad_file, teacher=str(teacher)))
    reader = SplitReader.from_pretrained(binarised)
    assert (reader.model.config.k, reader.model.config.bits) == (1, 16)
    assert len(reader.read(["What of 3?"], reader.encode([passage(3)]))[0].score)
    record = json.loads((binarised / "training.json").read_text(encoding="utf-8"))
    assert record["settings"]["stage"] == "binarised"
    assert any("eval_loss" in entry for entry in record["history"])
    before = AutoTokenizer.from_pretrained(plain_reader(family)).backend_tokenizer.to_str()
    assert AutoTokenizer.from_pretrained(binarised).backend_tokenizer.to_str() == before


def test_what_is_to_be_written(squad_file):
    tokenizer, paragraphs = make_tokenizer("t5"), read_squad(squad_file)
    dataset = PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=12, passages=3, negatives=1, writes=True)
    told = nothing = 0
    for number in range(len(dataset)):
        batch = collate([dataset[number]], pad=0)
        for row, question in enumerate(batch["labels"]):
            places = batch["answers"][batch["group"] == row]
            text = tokenizer.decode(question[question >= 0])
            if (places >= 0).any():
                assert text.removesuffix("</s>").strip() in {passage(n).split()[2] for n in range(6)}
                assert question[question >= 0][-1] == tokenizer.eos_token_id
                told += 1
            else:
                assert not text
                nothing += 1
    assert told
    assert nothing


def test_three_stages_make_a_reader_that_writes(plain_reader, seq2seq, squad_file, tmp_path, logged_often):
    """The decoder joins an extractive teacher; one checkpoint finds spans and writes."""
    teacher, decomposed, binarised = tmp_path / "teacher", tmp_path / "decomposed", tmp_path / "binarised"
    writing = {"weights": Weights(writing=1.0)}
    run_stage(settings_for("teacher", seq2seq, teacher, squad_file, **writing))
    found = tmp_path / "found"
    BTRForQuestionAnswering.from_pretrained(teacher).save_pretrained(found)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(found)
    writing["decoder"] = str(seq2seq)
    run_stage(settings_for("decomposed", found, decomposed, squad_file, teacher=str(teacher), **writing))
    del writing["decoder"]
    run_stage(settings_for("binarised", decomposed, binarised, squad_file, teacher=str(teacher), **writing))
    history = json.loads((teacher / "training.json").read_text(encoding="utf-8"))["history"]
    assert any("loss_writing" in entry for entry in history)
    reader, finder = GenerativeReader.from_pretrained(binarised), SplitReader.from_pretrained(binarised)
    passages = reader.encode([passage(3)])
    assert len(reader.write(["What of 3?"], passages)[0]) == 1
    assert len(finder.read(["What of 3?"], passages)[0].score)
    grafted = BTRForConditionalGeneration.with_decoder_of(seq2seq, finder.model)
    spans = grafted.eval().encoder.state_dict()
    for name, weight in finder.model.encoder.state_dict().items():
        assert torch.equal(spans[name], weight), name
    theirs = BTRForConditionalGeneration.from_reader(seq2seq).encoder
    grafted.save_pretrained(tmp_path / "grafted")
    loaded = BTRForConditionalGeneration.from_pretrained(tmp_path / "grafted")
    for model in (grafted, loaded):
        for part in ("decoder", "lm_head"):
            for name, weight in theirs.get_submodule(part).state_dict().items():
                ours = model.encoder.get_submodule(part).state_dict()[name]
                assert torch.allclose(ours, weight, rtol=1e-3), name  # the embedding is the reader's, in half precision
        assert torch.equal(model.encoder.shared.weight, finder.model.encoder.shared.weight)
    with pytest.raises(ModelError, match="'bert' has no decoder"):
        BTRForConditionalGeneration.with_decoder_of(seq2seq, BTRForQuestionAnswering.from_reader(plain_reader("bert")))
    T5ForConditionalGeneration(T5Config.from_pretrained(seq2seq, d_ff=64)).save_pretrained(tmp_path / "wider")
    with pytest.raises(ModelError, match=r"does not fit the reader: encoder\.decoder\.block\.0.* has another shape"):
        BTRForConditionalGeneration.with_decoder_of(tmp_path / "wider", finder.model)
    deeper = T5Config.from_pretrained(seq2seq, num_layers=6)
    T5ForConditionalGeneration(deeper).save_pretrained(tmp_path / "deeper")
    longer = BTRForConditionalGeneration.with_decoder_of(tmp_path / "deeper", finder.model)
    assert longer.config.encoder.num_hidden_layers == finder.model.config.encoder.num_hidden_layers
    with pytest.raises(ValueError, match=r"weights\.writing is 0"):
        settings_for("teacher", seq2seq, teacher, squad_file, decoder=str(seq2seq))


def test_writing_is_learnt(seq2seq, squad_file, tmp_path, logged_often):
    """The loss that the decoder's own weights bring down."""
    weights = Weights(writing=1.0)
    run_stage(
        settings_for("teacher", seq2seq, tmp_path / "m", squad_file, steps=30, learning_rate=5e-3, weights=weights)
    )
    history = json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))["history"]
    losses = [entry["loss_writing"] for entry in history if "loss_writing" in entry]
    assert losses[-1] < 0.7 * losses[0]  # a tenth, with three seeds


def test_training_lowers_the_loss(plain_reader, squad_file, tmp_path, logged_often):
    run_stage(settings_for("teacher", plain_reader("bert"), tmp_path / "m", squad_file, steps=30, learning_rate=4e-3))
    losses = [
        e["loss"]
        for e in json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))["history"]
        if "loss" in e
    ]
    assert losses[-1] < 0.8 * losses[0]  # a fifth, with three seeds


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_killed_stage_goes_on_where_it_stopped(optimizer, plain_reader, squad_file, tmp_path, monkeypatch):
    base = plain_reader("bert")
    whole = run_stage(settings_for("teacher", base, tmp_path / "whole", squad_file, optimizer=optimizer))
    cut = settings_for("teacher", base, tmp_path / "cut", squad_file, optimizer=optimizer)
    with monkeypatch.context() as patched:
        patched.setattr(BTRForQuestionAnswering, "save_pretrained", _fail_on_second_call())
        with pytest.raises(KeyboardInterrupt):
            run_stage(cut)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = run_stage(cut)
    weights = [BTRForQuestionAnswering.from_pretrained(folder).state_dict() for folder in (whole, resumed)]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=2e-3), name


def test_a_folder_of_other_settings_is_refused(plain_reader, squad_file, tmp_path):
    base, output = plain_reader("bert"), tmp_path / "out"
    run_stage(settings_for("teacher", base, output, squad_file))
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"seed was 0 and is 1\. Give the same settings, or another output folder"):
        run_stage(settings_for("teacher", base, output, squad_file, seed=1))
    assert (output / "model.safetensors").read_bytes() == before
    begun = output / "settings.json"
    older = {
        name: value for name, value in json.loads(begun.read_text(encoding="utf-8")).items() if name != "nested_shares"
    }
    begun.write_text(json.dumps(older), encoding="utf-8")  # by a release that did not have it
    run_stage(settings_for("teacher", base, output, squad_file, steps=8))
    assert (output / "model.safetensors").read_bytes() != before
    begun.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"settings\.json: not the settings of a stage"):
        run_stage(settings_for("teacher", base, output, squad_file))


def test_other_contents_under_the_same_name_are_refused(plain_reader, squad_file, tmp_path):
    base, data, output = tmp_path / "base", tmp_path / "data.json", tmp_path / "out"
    shutil.copytree(plain_reader("bert"), base)
    shutil.copy(squad_file, data)
    settings = settings_for("teacher", base, output, data)
    run_stage(settings)
    run_stage(settings)
    content = data.read_bytes()
    data.write_bytes(gzip.compress(gzip.decompress(content) + b"\n"))
    with pytest.raises(ValueError, match="began with other contents of data, under the same name"):
        run_stage(settings)
    data.write_bytes(content)
    weights = load_file(base / "model.safetensors")
    save_file({name: weight * 1.5 for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="began with other contents of base, under the same name"):
        run_stage(settings)


def test_codes_that_can_be_cut(plain_reader, squad_file, tmp_path, logged_often):
    base, teacher, output = plain_reader("t5"), tmp_path / "teacher", tmp_path / "nested"
    run_stage(settings_for("teacher", base, teacher, squad_file))
    weights = Weights(first_look=0.3)
    settings = settings_for(
        "binarised", teacher, output, squad_file, teacher=str(teacher), nested=(4, 8), weights=weights,
        coded_share=0.6, nested_shares=(1.0, 0.3),
    )  # fmt: skip
    run_stage(settings)
    history = json.loads((output / "training.json").read_text(encoding="utf-8"))["history"]
    assert any("loss_first_look" in entry for entry in history)
    short = SplitReader.from_pretrained(output, bits=4)
    assert short.coded_share == 0.6
    assert len(short.read(["What of 3?"], short.encode([passage(3)]), kept_share=0.5)[0].score)
    with pytest.raises(ValueError, match=r"nested is \(16,\); expected numbers of bits above 0 and below bits = 16"):
        settings_for("binarised", base, output, squad_file, teacher="t", nested=(16,))
    with pytest.raises(ValueError, match=r"coded_share is None and nested_shares is \(2,\); expected shares"):
        settings_for("binarised", base, output, squad_file, teacher="t", nested_shares=(2,))


def test_frozen_lower_layers_stay(plain_reader, squad_file, tmp_path):
    base = plain_reader("bert")
    settings = settings_for("decomposed", base, tmp_path / "m", squad_file, teacher=str(base), frozen_lower=True, k=2)
    run_stage(settings)
    before, after = (
        BTRForQuestionAnswering.from_reader(folder, k=2).family.layers for folder in (base, tmp_path / "m")
    )
    assert all(
        torch.equal(a.half(), b.half()) for a, b in zip(before[:2].parameters(), after[:2].parameters(), strict=True)
    )
    assert any(
        not torch.equal(a.half(), b.half()) for a, b in zip(before[2].parameters(), after[2].parameters(), strict=True)
    )


def test_what_is_not_said_is_the_bases(plain_reader, squad_file, tmp_path):
    """A reader that is trained on keeps its split, codes and stop tokens."""
    teacher, first, second = plain_reader("bert"), tmp_path / "first", tmp_path / "second"
    made = {"bits": 24, "k": 2, "scale": "stored", "stop_tokens": (5, 7), "teacher": str(teacher)}
    run_stage(settings_for("binarised", teacher, first, squad_file, **made))
    unsaid = dict.fromkeys(("k", "bits", "code", "scale", "stop_tokens"))
    run_stage(settings_for("binarised", first, second, squad_file, **{**unsaid, "nested": (8,)}, teacher=str(teacher)))
    config = SplitReader.from_pretrained(second).model.config
    assert (config.k, config.bits, config.code, config.scale) == (2, 24, "residual", "stored")
    assert config.stop_tokens == [5, 7]
    settings = settings_for(
        "binarised", first, tmp_path / "m", squad_file, **unsaid, nested=(24,), teacher=str(teacher)
    )
    with pytest.raises(ValueError, match=r"nested is \(24,\); expected numbers of bits above 0 and below bits = 24"):
        run_stage(settings)


def test_the_decoder_alone(seq2seq, squad_file, tmp_path):
    """Whatever else is said, and whatever there is to write, stores of the base stay good."""
    writing = {"weights": Weights(writing=1.0, imitation=0, distillation=0)}
    base = tmp_path / "base"
    run_stage(settings_for("binarised", seq2seq, base, squad_file, bits=24, k=2, scale="stored", **writing))
    exact = BTRForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    exact.encoder.shared.weight.data += 1e-5  # half precision would lose it
    exact.save_pretrained(base)
    unanswered = tmp_path / "unanswered.json"
    data = json.loads(gzip.decompress(squad_file.read_bytes()))
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question |= {"answers": [], "is_impossible": True}
    unanswered.write_text(json.dumps(data), encoding="utf-8")
    for file in (unanswered, squad_file):
        settings = settings_for("binarised", base, tmp_path / "m", file, decoder_only=True, **writing)
        run_stage(dataclasses.replace(settings, output=str(tmp_path / file.stem), weights=Weights(writing=1.0)))
    found = [SplitReader.from_pretrained(folder) for folder in (base, tmp_path / squad_file.stem)]
    assert found[0].fingerprint.digest == found[1].fingerprint.digest
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / squad_file.stem))
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(name.startswith("encoder.decoder.") for name in changed)
    with pytest.raises(ValueError, match=r"decoder_only is on but weights\.writing is 0"):
        settings_for("binarised", base, tmp_path / "n", squad_file, teacher="t", decoder_only=True)


def test_a_group_is_a_paragraph_and_its_rivals(squad_file):
    tokenizer = make_tokenizer("bert")
    texts = ["Oslo lies in Norway.", "Bread needs yeast.", "Norway has Oslo and Bergen.", "Yeast and flour make bread."]
    asked = ["Where is Oslo?", "What does bread need?", "What has Norway?", "What do yeast and flour make?"]
    paragraphs = [
        Paragraph(f"t{n}", text, (Question(str(n), question, ((text.split()[0], 0),)),))
        for n, (text, question) in enumerate(zip(texts, asked, strict=True))
    ]
    dataset = PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=8, passages=2)
    for epoch in range(4):
        assert {frozenset(group) for group in dataset._epoch(epoch)} == {frozenset({0, 2}), frozenset({1, 3})}


def test_two_processes_train_one_model(plain_reader, squad_file, tmp_path):
    """As on two GPUs: each reads groups of its own, and the model is that of their mean gradients."""
    programs = Path(sys.executable).parent
    start = (programs / "torchrun", "--standalone", "--nproc_per_node", "2", programs / "btr")
    teacher, output = plain_reader("t5"), tmp_path / "two"
    given = {
        "base": teacher, "teacher": teacher, "output": output, "data": squad_file, "k": 1, "bits": 16, "steps": 4,
        "passages": 2, "save-every": 2, "warmup": 1, "validation": 0.34,
    }  # fmt: skip
    options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*start, "train", "binarised", *options]
    done = subprocess.run(command, env=threads, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert len(SplitReader.from_pretrained(output).read(["What of 3?"], [])) == 1
    [at_end] = [
        entry
        for entry in json.loads((output / "training.json").read_text(encoding="utf-8"))["history"]
        if "train_loss" in entry
    ]
    assert at_end["step"] == 4
    assert at_end["train_samples_per_second"] / at_end["train_steps_per_second"] == pytest.approx(2, rel=0.05)


def test_muon_takes_matrices_and_adamw_the_rest():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    head = list(model[2].parameters())
    optimizer = new_optimizer(model, head, kind="muon", learning_rate=0.1, new_learning_rate=0.2)
    matrices, vectors, new = (group["params"] for group in optimizer.param_groups)
    assert [tuple(weight.shape) for weight in matrices] == [(4, 3)]
    assert {weight.ndim for weight in vectors} == {1}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.2]
    assert [id(weight) for weight in new] == [id(weight) for weight in head]

    before = {name: weight.clone() for name, weight in model.named_parameters()}
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters() if weight.grad.any())
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # what a scheduler does
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_more_steps_go_on_with_new_groups(plain_reader, squad_file, tmp_path, monkeypatch):
    base, dealt, deal = plain_reader("bert"), [], PairDataset.__getitem__
    monkeypatch.setattr(PairDataset, "__getitem__", lambda self, n: dealt.append(n) or deal(self, n))
    monkeypatch.setattr("btr_haystack.training.stages.split_articles", lambda paragraphs, share, seed: (paragraphs, []))
    for steps in (3, 7):
        run_stage(settings_for("teacher", base, tmp_path / "m", squad_file, steps=steps))
    assert dealt[:3] == [0, 1, 2]
    assert dealt[-4:] == [3, 4, 5, 6]


def _fail_on_second_call():
    original, calls = BTRForQuestionAnswering.save_pretrained, []

    def save(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    return save


def test_what_cannot_be_trained_is_refused_before_work(plain_reader, squad_file, tmp_path):
    with pytest.raises(ValueError, match="stage is 'other'"):
        settings_for("other", "x", tmp_path, squad_file)
    with pytest.raises(ValueError, match="optimizer is 'sgd'"):
        settings_for("teacher", "x", tmp_path, squad_file, optimizer="sgd")
    with pytest.raises(ValueError, match="imitates a teacher"):
        settings_for("binarised", "x", tmp_path, squad_file)
    empty = tmp_path / "empty.json"
    empty.write_text(
        json.dumps({"data": [{"title": "a", "paragraphs": [{"context": "text", "qas": []}]}]}), encoding="utf-8"
    )
    with pytest.raises(DataError, match="no question to train on"):
        run_stage(settings_for("teacher", plain_reader("bert"), tmp_path / "out", empty))


QED = {
    "example_id": 7,
    "title_text": "Oslo",
    "question_text": "what is the capital of norway",
    "paragraph_text": "Oslo, once Oslo again, is the capital.",
    "answer_spans": [[11, 15]],
    "answer_text": ["Oslo"],
}
CLAIM = {
    "id": 3,
    "claim": "Oslo is small.",
    "label": "REFUTES",
    "evidence": ["Oslo -LRB- big -RRB- .", "It is a town ."],
}


def test_three_kinds_of_files(squad_file, tmp_path, caplog):
    (tmp_path / "nq.jsonl").write_text(json.dumps(QED) + "\n", encoding="utf-8")
    without = {"id": 4, "claim": "So it is.", "label": "SUPPORTS"}
    (tmp_path / "fever.jsonl.gz").write_bytes(gzip.compress(f"\n{json.dumps(CLAIM)}\n{json.dumps(without)}\n".encode()))
    assert read_paragraphs(squad_file) == read_squad(squad_file)
    asked = Question("7", "question: what is the capital of norway", (("Oslo", 11),))
    assert read_paragraphs(tmp_path / "nq.jsonl") == [Paragraph("nq.jsonl/7", QED["paragraph_text"], (asked,))]
    claim = Question("3", "Is this claim true or false? Oslo is small.", (), "false")
    expected = Paragraph("fever.jsonl.gz/3", "Oslo ( big ) . It is a town .", (claim,))
    with caplog.at_level(logging.WARNING):
        assert read_paragraphs(tmp_path / "fever.jsonl.gz") == [expected]
    assert "left out 1 claims without the text of their evidence" in caplog.text
    (tmp_path / "pages.jsonl").write_text(json.dumps(without | {"evidence": [[[1, 2, "Oslo", 0]]]}), encoding="utf-8")
    with pytest.raises(DataError, match="none of 1 claims comes with the text of its evidence"):
        read_paragraphs(tmp_path / "pages.jsonl")
    (tmp_path / "open.jsonl").write_text(json.dumps({"question": "who?", "answer": ["I"]}), encoding="utf-8")
    with pytest.raises(DataError, match="questions without paragraphs"):
        read_paragraphs(tmp_path / "open.jsonl")


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"questions": []}'])
def test_other_files_are_told_of(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json"):
        read_paragraphs(path)


def test_rows_are_trained_on_as_the_file_that_they_are_of(squad_file, tmp_path):
    paragraphs = read_squad(squad_file)
    rows = [
        {
            "id": question.id, "title": paragraph.title, "context": paragraph.text, "question": question.text,
            "answers": {
                "text": [text for text, _ in question.answers],
                "answer_start": [start for _, start in question.answers],
            },
        }
        for paragraph in paragraphs for question in paragraph.questions
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_paragraphs(tmp_path / "rows.jsonl") == paragraphs


def test_answers_are_taken_from_where_they_stand_with_one_warning(tmp_path, caplog):
    context = "Oslo? Oslo is the Capital\r\nof Norway."
    answers = {  # what the file says of each question, and what is learnt
        "right": ([("Oslo", 6)], [("Oslo", 6)]),
        "off by one": ([("Oslo", 5)], [("Oslo", 6)]),
        "unknown": ([("Norway", -1)], [("Norway", 30)]),
        "other case and space": ([("capital of", 18)], [("Capital\r\nof", 18)]),
        "space around": ([(" Oslo ", 5)], [("Oslo", 6)]),
        "another one": ([("Bergen", 0), ("Norway", 29)], [("Norway", 30)]),
        "nowhere": ([("Bergen", 0)], None),
        "unanswerable": ([], []),
    }
    rows = [
        {"context": context, "question": name, "id": name, "answers": [{"text": t, "answer_start": s} for t, s in said]}
        for name, (said, _) in answers.items()
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (paragraph,) = read_paragraphs(tmp_path / "rows.json")
    found = {question.text: list(question.answers) for question in paragraph.questions}
    assert found == {name: learnt for name, (_, learnt) in answers.items() if learnt is not None}
    (record,) = warnings_in(caplog)
    assert "rows.json: 5 answers stand elsewhere" in record.getMessage()
    assert "2 answers stand nowhere in their paragraph, and 1 questions were left out" in record.getMessage()


def test_questions_with_passages_have_the_first_that_answers(tmp_path, caplog):
    ctxs = [{"title": "Bergen", "text": "A town."}, {"title": "Oslo", "text": "It is oslo."}]
    one = {"id": 7, "question": "which town", "answers": ["Oslo"], "ctxs": ctxs}
    asked = Question("7", "question: which town", (("oslo", 6),))
    (tmp_path / "dev.json").write_text(json.dumps([one], indent=1), encoding="utf-8")
    assert read_paragraphs(tmp_path / "dev.json") == [Paragraph("Oslo", "It is oslo.", (asked,))]
    assert not warnings_in(caplog)
    lost = [one | {"answers": ["Rome"]}, one | {"ctxs": []}, {"question": "who", "answer": ["I"]}]
    (tmp_path / "dev.json").write_text(json.dumps([one, *lost, QED]), encoding="utf-8")
    assert [paragraph.title for paragraph in read_paragraphs(tmp_path / "dev.json")] == ["Oslo", "dev.json/7"]
    (record,) = warnings_in(caplog)
    assert "dev.json: left out 3 of 5 questions" in record.getMessage()
    (tmp_path / "dev.json").write_text(json.dumps(lost[:2]), encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.json: none of 2 questions comes with a passage in which an answer"):
        read_paragraphs(tmp_path / "dev.json")


EDGES = {
    "plain": "Marie Curie", "space behind": "Marie Curie ", "space before": " Marie Curie", "line end": "Marie Curie\n",
    "no-break space": "Marie Curie\u00a0", "zero-width space": "\u200bMarie Curie\u200b", "mark": "\ufeffMarie Curie",
    "decomposed": "Marie Curie\u0301", "inside a word": "ari", "ends inside": "Marie Cu", "a joiner": "Mari\u200de",
}  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
@pytest.mark.parametrize("answer", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("offset", [0, 1, None])
def test_no_edge_makes_an_answer_none(family, answer, offset, caplog):
    tokenizer = make_tokenizer(family)
    text = f"The prize was won by{'' if answer[0].isspace() else ' '}{answer} in 1911."
    start = -1 if offset is None else text.index(answer) + offset
    paragraph = Paragraph("t", text, (Question("1", "Who?", ((answer, start),)),))
    dataset = PairDataset([paragraph], tokenizer, frame_of(tokenizer), length=1, passages=1, negatives=0, writes=True)
    (pair,) = dataset[0].pairs
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    wanted = trimmed(answer)
    begin = text.index(wanted)
    covering = [i for i, (a, b) in enumerate(offsets) if a < begin + len(wanted) and b > begin]
    assert (pair.start, pair.end) == (covering[0], covering[-1])
    assert pair.answer == [*tokenizer(wanted, add_special_tokens=False)["input_ids"], *dataset.frame.closing]
    assert not warnings_in(caplog)


def test_questions_that_cannot_be_learnt_are_left_out_with_one_warning(caplog):
    tokenizer = make_tokenizer("bert")
    town = "Oslo is a town."
    asked = [("Oslo", town), ("Rome", town), (" \u200b", town), ("\u0300", "a \u0300 b")]
    paragraphs = [
        Paragraph(str(n), text, (Question(str(n), "Who?", ((answer, 0),)),)) for n, (answer, text) in enumerate(asked)
    ]
    paragraphs.append(Paragraph("none", "Nothing is told.", (Question("none", "Who?", ()),)))
    frame = frame_of(tokenizer)
    dataset = PairDataset(paragraphs, tokenizer, frame, length=2, passages=1, negatives=0)
    assert [paragraph.title for paragraph in dataset.paragraphs] == ["0", "none"]
    assert sorted(pair.start for group in dataset for pair in group.pairs) == [-1, 0]
    (record,) = warnings_in(caplog)
    assert "left out 3 of 5 questions: the answers of 2 stand nowhere" in record.getMessage()
    assert "those of 1 have no token" in record.getMessage()
    with pytest.raises(DataError, match="left out 1 of 1 questions"):
        PairDataset(paragraphs[1:2], tokenizer, frame, length=2, passages=1)


def test_an_answer_outside_of_the_window_is_not_in_it():
    tokenizer = make_tokenizer("bert")
    text = " ".join(f"word{n}" for n in range(40))
    paragraph = Paragraph("t", text, (Question("1", "Which?", (("word39 ", -1),)),))
    dataset = PairDataset([paragraph], tokenizer, frame_of(tokenizer), length=40, passages=1, negatives=0, window=60)
    places = {(pair.start >= 0, bool(dataset.labels[0][0].said)) for group in dataset for pair in group.pairs}
    assert places == {(True, True), (False, True)}


def test_an_asker_tells_of_questions_that_it_cannot_learn_from(squad_file, caplog):
    turned = asking(read_squad(squad_file))
    assert all(question.answers for paragraph in turned for question in paragraph.questions)
    (record,) = warnings_in(caplog)
    assert "left out 3 questions without an answer" in record.getMessage()


def test_labels_are_written_and_found_in_no_passage():
    tokenizer = make_tokenizer("t5")
    paragraphs = [
        Paragraph(str(number), passage(number), (Question(str(number), "Is it so?", (), label),))
        for number, label in enumerate(("true", "false", "true", "false"))
    ]
    dataset = PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=2, passages=2, negatives=1, writes=True)
    for group in dataset:
        batch = collate([group], pad=0)
        assert (batch["answers"] == -1).all()
        assert len(batch["pairs"]) == 4  # each claim beside its evidence and a wrong passage
        texts = {tokenizer.decode(row[row >= 0]).removesuffix("</s>").strip() for row in batch["labels"]}
        assert texts <= {"true", "false"}
    silent = PairDataset(paragraphs, tokenizer, frame_of(tokenizer), length=2, passages=2, negatives=1)
    assert all((collate([group], pad=0)["labels"] == -100).all() for group in silent)


def test_writing_in_batches_of_like_size_is_writing_at_once(seq2seq, monkeypatch):
    model = BTRForConditionalGeneration.from_reader(seq2seq).train()
    draw = torch.Generator().manual_seed(0)
    sizes = torch.tensor([9, 3, 30, 4])
    fused = [torch.randn(int(size), model.config.encoder.d_model, generator=draw) for size in sizes]
    labels = torch.tensor([[5, 6, 1], [7, 1, -100], [-100, -100, -100], [8, 9, 1]])
    apart = model.eval()._writing_loss(fused, sizes, labels)
    monkeypatch.setattr(rows, "PADDING", 1.0)
    assert torch.allclose(apart, model._writing_loss(fused, sizes, labels), atol=1e-5)
    assert torch.allclose(apart, model._writing_loss(fused[::-1], sizes.flip(0), labels.flip(0)), atol=1e-5)


def test_compression_in_training_is_what_a_compressed_reader_sees(seq2seq):
    """The loss of an answer is its log-probability as the reader scores it, merged in the same way."""
    model = BTRForConditionalGeneration.from_reader(seq2seq).eval()
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1, 40, model.config.encoder.d_model, generator=draw)
    sizes = torch.tensor([40])
    for share in (0.0, 0.3):
        views = views_of(View(states, torch.ones(1, 40)), len(model.encoder.decoder.block), share, MERGE_EVERY)
        written, score = model.write(views if share else views[:1], max_new_tokens=5)
        written = written[written != model.config.encoder.pad_token_id][None]
        with torch.no_grad():
            loss = model._writing_loss(list(states), sizes, written, share)
        assert -float(loss) == pytest.approx(float(score), abs=1e-4)
    fused = states.requires_grad_()
    model.train()._writing_loss(list(fused), sizes, torch.tensor([[5, 1]]), 0.3).backward()
    assert bool((fused.grad != 0).any(2).all())  # each token tells, the merged ones through their means


@pytest.mark.parametrize(
    ("share", "writing", "told"),
    [(0.6, 1.0, r"merged_across is 0\.6; expected a share"), (0.2, 0.0, r"weights\.writing is 0: nothing is written")],
)
def test_compression_that_cannot_be_trained(seq2seq, squad_file, tmp_path, share, writing, told):
    with pytest.raises(ValueError, match=told):
        settings_for("teacher", seq2seq, tmp_path, squad_file, merged_across=share, weights=Weights(writing=writing))


def test_special_tokens_in_texts_are_learnt_as_text(seq2seq):
    """As they are read: in the passage, in the question, and in what is to be written."""
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    frame = frame_of(tokenizer)
    text = "The tag </s> ends a text; <pad> fills it."
    paragraph = Paragraph("t", text, (Question("1", "What does </s> do?", (("</s> ends", text.index("</s>")),)),))
    [group] = [PairDataset([paragraph], tokenizer, frame, length=1, passages=1, negatives=0, writes=True)[0]]
    [pair] = group.pairs
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for ids, closing in (
        (group.passages[0], frame.closing),
        (pair.question, frame.middle),
        (pair.answer, frame.closing),
    ):
        assert control.isdisjoint(ids[: -len(closing)])
    assert pair.start < pair.end
