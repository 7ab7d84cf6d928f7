# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_tokenizer, passage, rows_alike
from safetensors.torch import load_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    CamembertConfig,
    CamembertForQuestionAnswering,
    GPT2Config,
    GPT2LMHeadModel,
    XLMRobertaConfig,
    XLMRobertaForQuestionAnswering,
)

from btr_haystack import BTRConfig, BTRForQuestionAnswering, SplitReader, fit_codes
from btr_haystack.errors import DataError, ModelError
from btr_haystack.model import join
from btr_haystack.padding import padded
from btr_haystack.record import cut, pack, unpack
from btr_haystack.rows import codes_of
from btr_haystack.windows import frame_of, question_part, tokenise

IDS = torch.tensor([[5, 9, 12, 30, 7, 21], [6, 11, 8, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(params=FAMILIES)
def joint(request, plain_reader):
    folder = plain_reader(request.param)
    load = BTRForQuestionAnswering.from_pretrained if request.param == "t5" else BTRForQuestionAnswering.from_reader
    return load(folder).eval()


@torch.no_grad()
def test_layers_run_by_hand_are_the_encoder(joint):
    """All of a family's own running of layers, against transformers' forward."""
    padding = joint.config.encoder.pad_token_id
    ids = IDS.masked_fill(MASK == 0, padding)
    segments = {"token_type_ids": torch.zeros_like(ids)} if joint._has_segments() else {}
    expected = joint.encoder(input_ids=ids, attention_mask=MASK, **segments).last_hidden_state

    def by_hand(ids, mask):
        states = joint.family.run(joint.family.embed(ids, start=0, segment=0), mask, 0, len(joint.family.layers))
        return joint.family.close(states)

    states = by_hand(ids, MASK)
    inside = MASK.bool()
    assert torch.allclose(states[inside], expected[inside], atol=1e-4, rtol=1e-4)
    alone = by_hand(ids[1:, :4], None)
    assert torch.allclose(alone[0], expected[1, :4], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "kind"),
    [(XLMRobertaConfig, XLMRobertaForQuestionAnswering), (CamembertConfig, CamembertForQuestionAnswering)],
)
def test_kin_of_roberta(config, kind, tmp_path):
    tokenizer = make_tokenizer("roberta")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    ordinary = kind(config(vocab_size=len(tokenizer), pad_token_id=1, type_vocab_size=1, **sizes)).eval()
    ordinary.save_pretrained(tmp_path)
    inputs = {"input_ids": IDS[:1], "attention_mask": MASK[:1]}
    with torch.no_grad():
        ours, theirs = BTRForQuestionAnswering.from_reader(tmp_path).eval()(**inputs), ordinary(**inputs)
    assert torch.allclose(ours.start_logits, theirs.start_logits, atol=1e-5)
    model = BTRForQuestionAnswering.from_reader(tmp_path, k=2, bits=16)
    fit_codes(model, tokenizer, [passage(number) for number in range(9)])
    reader = SplitReader(model, tokenizer)
    assert len(reader.read(["Who?"], reader.encode([passage(0)]))[0].score) == 20


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_calibration_is_undone(family, split_reader):
    model = BTRForQuestionAnswering.from_pretrained(split_reader(family, k=2)).eval()
    states = model.lower(IDS, MASK, passage=True)[MASK.bool()]
    assert torch.allclose(model.family.restore(model.family.calibrate(states)), states, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_training_and_reading_decode_alike(family, split_reader):
    """What stage 3 trains on is what the reader reads."""
    folder = split_reader(family, k=1)
    reader = SplitReader.from_pretrained(folder)
    [made] = reader.encode([passage(3)])
    ids = torch.from_numpy(made.ids)[None].long()
    states = reader.model.lower(ids, None, passage=True)[0]
    expected, _ = reader.model.recode(states, ids[0])
    with torch.inference_mode():
        assert rows_alike(reader._decode(codes_of([made]), 0, len(made.ids)), expected)


def test_split_forward_equals_reading(split_reader):
    reader = SplitReader.from_pretrained(split_reader("t5", k=1))
    question, text = "Where is Oslo?", passage(0)
    [made] = reader.encode([text])
    [spans] = reader.read([question], [made], spans_per_window=1)
    asked = torch.tensor([[*reader.tokenizer(question, add_special_tokens=False)["input_ids"], *reader.frame.middle]])
    ids = torch.from_numpy(made.ids)[None].long()
    with torch.no_grad():
        out = reader.model(
            question_ids=asked, question_mask=torch.ones_like(asked), passage_ids=ids,
            passage_mask=torch.ones_like(ids), pairs=torch.tensor([[0, 0]]),
        )  # fmt: skip
    length = asked.shape[1]
    best = out.start_logits[0, length + spans.start[0]] + out.end_logits[0, length + spans.end[0]]
    assert best.item() == pytest.approx(spans.score[0].item(), abs=1e-3)


def test_rows_are_joined_without_a_gap():
    questions, passages = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    question_mask, passage_mask = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    pairs = torch.tensor([[0, 1], [1, 0], [0, 0]])
    states, mask = join(questions, question_mask, passages, passage_mask, pairs)
    assert mask.sum(1).tolist() == [4, 8, 7]
    for row, (q, p) in enumerate(pairs.tolist()):
        whole = torch.cat([questions[q, : question_mask[q].sum()], passages[p, : passage_mask[p].sum()]])
        assert torch.equal(states[row, : len(whole)], whole)
        assert not states[row, len(whole) :].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_auto_class_gives_the_joint_reader(family, split_reader):
    folder = split_reader(family, k=2)
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=IDS[:1], attention_mask=MASK[:1])
    assert out.start_logits.shape == (1, 6)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"]["model_type"] == family
    assert not list(folder.glob("*.bin"))


def test_stop_tokens_keep_no_bits(split_reader):
    plain = SplitReader.from_pretrained(split_reader("bert", k=1))
    [before] = plain.encode([passage(1)])
    stop = int(before.ids[2])
    reader = SplitReader.from_pretrained(split_reader("bert", k=1, stop_tokens=(stop,)))
    [after] = reader.encode([passage(1)])
    assert (after.kept == (after.ids != stop)).all()
    assert len(after.codes) == after.kept.sum() < len(before.codes)
    assert len(reader.read(["Where?"], [after])[0].score)
    assert reader.fingerprint != plain.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.67, 1.0])
@torch.no_grad()
def test_tokens_that_the_prior_tells_keep_no_bits(family, share, split_reader, long_document):
    """In each window those of which it tells most; encoding and training agree."""
    folder = split_reader(family, k=1)
    whole = SplitReader.from_pretrained(folder)
    reader = SplitReader.from_pretrained(folder, coded_share=share)
    assert reader.changed(coded_share=share) is reader
    assert (reader.fingerprint == whole.fingerprint) == (share == 1)
    [everything], [made] = whole.encode([long_document.content]), reader.encode([long_document.content])
    assert np.array_equal(made.codes, everything.codes[made.kept])
    first = 0
    for _, length in made.windows:
        assert made.kept[first : first + length].sum() == math.ceil(length * share - 1e-4)
        ids = torch.from_numpy(made.ids[first : first + length]).long()
        states = reader.model.lower(ids[None], None, passage=True)[0]
        prior_distance, kept = reader.model.code(states, ids)[1], torch.from_numpy(made.kept[first : first + length])
        if 0 < kept.sum() < length:
            assert prior_distance[kept].min() >= prior_distance[~kept].max() - 1e-5
        expected, _ = reader.model.recode(states, ids, coded_share=share)
        assert rows_alike(reader._decode(codes_of([made]), first, first + length), expected)
        first += length
    assert len(reader.read(["Where?"], [made])[0].score)
    assert np.array_equal(unpack(pack(made)).kept, made.kept)


def test_a_models_own_share_of_coded_tokens(split_reader):
    reader = SplitReader.from_pretrained(split_reader("t5", k=1, coded_share=0.5))
    assert reader.coded_share == reader.fingerprint.description["coded_share"] == 0.5
    [made] = reader.encode([passage(1)])
    assert made.kept.sum() == math.ceil(len(made.ids) / 2)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"coded_share is {share}; expected a share of the tokens from 0 to 1"):
            reader.changed(coded_share=share)


@torch.no_grad()
def test_the_kept_position_bias_is_that_of_the_weights(plain_reader):
    """T5's, whatever was asked for before, in whatever mode, and after its weights changed by whatever way."""
    model = BTRForQuestionAnswering.from_reader(plain_reader("t5"), k=1).eval()

    def check_bias(model, length):
        attention = model.family.layers[0].layer[0].SelfAttention
        bias = model.family._bias(length, torch.device("cpu"))
        assert torch.equal(bias, attention.compute_bias(length, length))
        assert bias.dtype == attention.relative_attention_bias.weight.dtype
        return attention.relative_attention_bias.weight

    with torch.inference_mode():
        check_bias(model, 5)
    weight = check_bias(model, 300)
    check_bias(model, 7)
    weight.mul_(2)
    check_bias(model, 7)
    weight.data.copy_(weight.data + 1)
    check_bias(model, 7)
    other = copy.deepcopy(model)
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    check_bias(other, 7)
    check_bias(model, 7)
    check_bias(model.to(torch.bfloat16), 7)
    with torch.enable_grad():
        other.family._bias(7, torch.device("cpu")).sum().backward()
    assert other.family.layers[0].layer[0].SelfAttention.relative_attention_bias.weight.grad.any()


@pytest.mark.parametrize("settings", [{"code": "sign", "bits": 32}, {"stop": True}, {"scale": "stored"}], ids=str)
def test_shares_of_tokens_with_every_kind_of_code(settings, split_reader):
    given = dict(settings)
    [plain] = SplitReader.from_pretrained(split_reader("t5", k=1)).encode([passage(1)])
    if given.pop("stop", False):
        given["stop_tokens"] = (int(plain.ids[2]),)
    reader = SplitReader.from_pretrained(split_reader("t5", k=1, coded_share=0.5, **given))
    [made] = reader.encode([passage(1)])
    assert 0 < made.kept.sum() <= math.ceil(len(made.ids) / 2)
    assert not np.isin(made.ids[made.kept], given.get("stop_tokens", ())).any()
    data = pack(made, keep_ids=False)
    [tokens] = reader.tokens([passage(1)])
    before, after = (reader.read(["What of 1?"], [one])[0].score for one in (made, unpack(data, tokens)))
    assert np.array_equal(before, after)
    assert np.isfinite(before).all()


def test_stored_scales_are_those_of_the_states(split_reader):
    errors = {}
    for scale in ("predicted", "stored"):
        reader = SplitReader.from_pretrained(split_reader("t5", k=2, bits=8, scale=scale))
        [made] = reader.encode([passage(4)])
        assert (made.scales is not None) == (scale == "stored")
        with torch.inference_mode():
            states = reader.model.lower(torch.from_numpy(made.ids)[None].long(), None, passage=True)[0]
            decoded = reader._decode(codes_of([made]), 0, len(made.ids))
        errors[scale] = (decoded.norm(dim=1).log() - states.norm(dim=1).log()).abs().max().item()
    assert errors["stored"] < 0.05  # half a step of 8 bits, whatever the model


def test_the_sign_code_of_the_paper(split_reader):
    reader = SplitReader.from_pretrained(split_reader("bert", k=1, bits=32, code="sign"))
    [made] = reader.encode([passage(2)])
    assert made.codes.shape[1] == 4
    with torch.inference_mode():
        ids = torch.from_numpy(made.ids)[None].long()
        coded = reader.model.family.calibrate(reader.model.lower(ids, None, passage=True)[0])
        level = reader.model.binariser.decoder.diag()
        expected = reader.model.family.restore(torch.where(coded >= 0, level, -level))
        assert rows_alike(reader._decode(codes_of([made]), 0, len(made.ids)), expected)


def test_windows_of_a_long_document(split_reader, long_document):
    reader = SplitReader.from_pretrained(split_reader("bert", k=1), max_seq_length=128, stride=16)
    [made] = reader.encode([long_document.content])
    assert len(made.windows) > 3
    assert made.windows[:, 1].sum() == len(made.ids)
    assert (made.windows[1:, 0] - made.windows[:-1, 0] == 128 - 24 - 1 - 16).all()
    [alone] = reader.encode([long_document.content])
    assert (alone.codes == made.codes).all()


def test_batching_and_many_questions_change_nothing(split_reader, monkeypatch):
    reader = SplitReader.from_pretrained(split_reader("roberta", k=1))
    passages = reader.encode([passage(number) for number in range(12)])
    questions = ["Where is Oslo?", "How tall is Mount Kenya, and since when?"]
    together = reader.read(questions, passages)
    one_by_one = [reader.read([question], passages, max_rows=1)[0] for question in questions]
    for a, b in zip(together, one_by_one, strict=True):
        assert (a.passage == b.passage).all()
        assert a.score == pytest.approx(b.score, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"k": 3}, "k is 3"),
        ({"k": -1}, "k is -1"),
        ({"k": 0, "bits": 8}, "nothing to code"),
        ({"k": 1, "bits": -1}, "bits is -1"),
        ({"k": 1, "bits": 8, "code": "other"}, "code is 'other'"),
        ({"k": 1, "bits": 8, "code": "sign"}, "one bit a dimension"),
        ({"k": 1, "bits": 8, "scale": "none"}, "scale is 'none'"),
        ({"k": 1, "bits": 8, "coded_share": 1.5}, "coded_share is 1.5"),
        ({"k": 1, "bits": 8, "stored_bits": 9}, r"stored_bits is 9; expected None \(all\), or 0 to 8"),
        ({"k": 1, "kept_share": 0.0}, "kept_share is 0.0; expected a share of the windows above 0 and up to 1"),
        ({"k": 0, "kept_share": 0.5}, "kept_share is 0.5 but k is 0 of 3 layers"),
        ({"k": 2, "kept_share": 0.5}, "kept_share is 0.5 but k is 2 of 3 layers"),
    ],
)
def test_impossible_settings_are_refused(settings, words, plain_reader):
    encoder = BTRForQuestionAnswering.from_reader(plain_reader("bert")).config.encoder
    with pytest.raises(ValueError, match=words):
        BTRConfig(encoder=encoder, **settings)


def test_models_that_cannot_be_split_are_refused(tmp_path):
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gpt2"):
        BTRForQuestionAnswering.from_reader(tmp_path)


def test_codes_must_be_there_before_they_are_used(plain_reader):
    folder = plain_reader("bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    decomposed = BTRForQuestionAnswering.from_reader(folder, k=1)
    with pytest.raises(ModelError, match="no codes"):
        SplitReader(decomposed, tokenizer)
    with pytest.raises(ModelError, match="no codes"):
        fit_codes(decomposed, tokenizer, [passage(0)])
    with pytest.raises(DataError, match="none of the 2 texts"):
        fit_codes(BTRForQuestionAnswering.from_reader(folder, k=1, bits=4), tokenizer, ["", ""])
    with pytest.raises(ModelError, match="joint"):
        SplitReader.from_pretrained(folder).encode(["text"])


def test_the_fingerprint_is_that_of_what_decides_the_codes(split_reader):
    folder = split_reader("bert", k=1)
    one = SplitReader.from_pretrained(folder)
    assert one.fingerprint == SplitReader.from_pretrained(folder, dtype=torch.bfloat16).fingerprint
    assert one.fingerprint == SplitReader(one.model, one.tokenizer).fingerprint
    assert one.fingerprint != one.changed(max_seq_length=200, stride=20).fingerprint
    assert one.fingerprint != SplitReader.from_pretrained(split_reader("bert", k=2)).fingerprint
    with torch.no_grad():
        one.model.qa_outputs.weight.add_(1.0)
        one.model.family.layers[2].output.dense.weight.add_(1.0)
    assert SplitReader(one.model, one.tokenizer).fingerprint == SplitReader.from_pretrained(folder).fingerprint
    with torch.no_grad():
        one.model.family.layers[0].output.dense.weight.add_(1.0)
    assert SplitReader(one.model, one.tokenizer).fingerprint != SplitReader.from_pretrained(folder).fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_last_layer_of_passages_alone_in_half_precision(split_reader, dtype):
    model = BTRForQuestionAnswering.from_pretrained(split_reader("t5", k=1), dtype=dtype).eval()
    torch.manual_seed(0)
    states = torch.randn(3, 20, model.config.encoder.hidden_size, dtype=dtype)
    mask = torch.ones(3, 20, dtype=torch.long)
    mask[1, 15:] = 0
    with torch.inference_mode():
        for given in (mask, None):
            whole, passage_alone = model.upper(states, given), model.upper(states, given, 6)
            assert passage_alone.dtype == dtype
            present = torch.ones(3, 14, dtype=torch.bool) if given is None else given[:, 6:].bool()
            torch.testing.assert_close(passage_alone[present], whole[:, 6:][present], atol=0.05, rtol=0.05)


def test_other_codes_of_a_btr_model_are_new(split_reader):
    folder = split_reader("bert", k=1, bits=16)
    kept = BTRForQuestionAnswering.from_reader(folder, k=1, bits=16)
    assert kept.binariser.decoder.any()
    for k, bits in ((1, 24), (2, 16)):
        new = BTRForQuestionAnswering.from_reader(folder, k=k, bits=bits)
        assert not new.binariser.decoder.any()
        assert torch.equal(new.qa_outputs.weight, kept.qa_outputs.weight)


def test_a_saved_model_does_not_tell_where_its_base_lay(split_reader):
    folder = split_reader("t5", k=1)
    assert str(folder.parent) not in (folder / "config.json").read_text(encoding="utf-8")
    assert "plain" not in (folder / "config.json").read_text(encoding="utf-8")


def test_rows_of_like_length_are_read_together(split_reader, monkeypatch):
    reader = SplitReader.from_pretrained(split_reader("t5", k=1))
    passages = reader.encode([" ".join([passage(0)] * times) for times in (1, 9, 2, 1, 8, 3, 1, 2, 9, 1)])
    seen, upper = [], reader.model.upper

    def watched(states, mask, *others):
        seen.append((states.shape[:2], int(mask.sum()) if mask is not None else states.shape[:2].numel()))
        return upper(states, mask, *others)

    monkeypatch.setattr(reader.model, "upper", watched)
    reader.read(["Who?"], passages)
    assert sum(shape[0] for shape, _ in seen) == sum(len(one.windows) for one in passages)
    assert all(tokens >= 0.9 * shape.numel() for shape, tokens in seen)
    assert 1 < len(seen) < len(passages)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "t5"])
@pytest.mark.parametrize("lengths", [(9, 9), (9, 5)])
def test_states_of_the_passage_alone_are_those_of_all(split_reader, kind, lengths):
    model = SplitReader.from_pretrained(split_reader(kind, k=1)).model
    states = torch.randn(2, 9, model.config.encoder.hidden_size, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9)[None] < torch.tensor(lengths)[:, None]).long()
    inside = mask[:, 3:].bool()
    with torch.inference_mode():
        for given in (mask, None)[: 2 if min(lengths) == 9 else 1]:
            whole, part = model.upper(states, given)[:, 3:], model.upper(states, given, 3)
            assert part.shape == whole.shape
            assert torch.allclose(part[inside], whole[inside], atol=1e-4, rtol=1e-4)
            last = model.upper(model.first_upper(states, given), given, 3, model.config.k + 1)
            assert torch.allclose(last[inside], whole[inside], atol=1e-4, rtol=1e-4)


def test_new_codes_are_refused_until_they_are_fitted(plain_reader):
    folder = plain_reader("t5")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for bits in (0, 16):
        model = BTRForQuestionAnswering.from_reader(folder, k=1, bits=bits)
        with pytest.raises(ModelError, match="codes are new: fit them with fit_codes"):
            SplitReader(model, tokenizer)
        fit_codes(model, tokenizer, [passage(number) for number in range(9)])
        SplitReader(model, tokenizer)


def test_pickled_weights_are_never_loaded(plain_reader, split_reader, tmp_path):
    for source, load in (
        (split_reader("bert"), AutoModelForQuestionAnswering.from_pretrained),
        (plain_reader("bert"), BTRForQuestionAnswering.from_reader),
        (plain_reader("bert"), SplitReader.from_pretrained),
    ):
        folder = tmp_path / source.name
        shutil.copytree(source, folder, dirs_exist_ok=True)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(OSError, match="safetensors"):
            load(str(folder))
        with pytest.raises(OSError, match="safetensors"):
            load(str(folder), use_safetensors=False)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"])
def test_damaged_weights_are_named(split_reader, plain_reader, tmp_path, content):
    for source, load in (
        (split_reader("bert"), SplitReader.from_pretrained),
        (plain_reader("bert"), BTRForQuestionAnswering.from_reader),
    ):
        folder = tmp_path / source.name
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "model.safetensors").write_bytes(content or (source / "model.safetensors").read_bytes()[:3000])
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged, or no safetensors file"):
            load(str(folder))


def test_the_fingerprint_does_not_depend_on_the_dtype_of_loading(split_reader, tmp_path):
    model = BTRForQuestionAnswering.from_pretrained(split_reader("bert")).half()
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(split_reader("bert"))
    tokenizer.save_pretrained(tmp_path)
    of_the_file = SplitReader.from_pretrained(tmp_path).fingerprint
    for dtype in (torch.float16, torch.float32):
        loaded = BTRForQuestionAnswering.from_pretrained(tmp_path, dtype=dtype)
        assert SplitReader(loaded, tokenizer).fingerprint == of_the_file


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_pair_is_read_alike_among_others_and_alone(family, split_reader):
    """Padding, batches of like length and shared passages change nothing, whatever the order of the pairs."""
    folder = split_reader(family, k=1)
    model, tokenizer = BTRForQuestionAnswering.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    frame = frame_of(tokenizer)
    questions = [question_part(frame, ids, 24) for ids in tokenise(tokenizer, ["Who?", "Who wrote forty letters?"])]
    texts = [passage(2), "Oslo.", " ".join(passage(n) for n in range(2)), passage(1)]
    passages = [[*ids, *frame.closing] for ids in tokenise(tokenizer, texts)]

    def read(asked, given, pairs):
        (question_ids, question_mask), (passage_ids, passage_mask) = (
            padded(part, tokenizer.pad_token_id) for part in (asked, given)
        )
        return model(
            question_ids=question_ids, question_mask=question_mask, passage_ids=passage_ids, passage_mask=passage_mask,
            pairs=torch.tensor(pairs), coded_share=0.6,
        )  # fmt: skip

    pairs = [(0, 2), (1, 1), (1, 0), (0, 3), (0, 0), (1, 2)]
    together = read(questions, passages, pairs)
    for row, (q, p) in enumerate(pairs):
        alone = read([questions[q]], [passages[p]], [(0, 0)])
        for name in ("start_logits", "end_logits", "states"):
            one = getattr(alone, name)[0]
            assert torch.allclose(getattr(together, name)[row, : len(one)], one, atol=1e-3, rtol=1e-3)
        assert torch.allclose(together.first_look[0][row, : len(one)], alone.first_look[0][0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_the_first_bits_of_a_code(family, split_reader):
    """Encoding with fewer bits, cutting what was encoded with all, and training with fewer are one thing."""
    whole = SplitReader.from_pretrained(split_reader(family, k=1, bits=24))
    for bits in (0, 8, 13):
        short = SplitReader.from_pretrained(split_reader(family, k=1, bits=24), bits=bits)
        assert short.fingerprint == whole.changed(bits=bits).fingerprint != whole.fingerprint
        texts = [passage(number) for number in range(4)]
        for one, other in zip(short.encode(texts), whole.encode(texts), strict=True):
            assert pack(one) == cut(pack(other), bits)
            assert unpack(pack(one)).codes.shape == (len(one.ids), -(-bits // 8))
        [made] = short.encode(texts[:1])
        with torch.inference_mode():
            ids = torch.from_numpy(made.ids).long()
            states = short.model.lower(ids[None], None, passage=True)[0]
            expected, _ = short.model.recode(states, ids, bits)
            decoded = short._decode(codes_of([made]), 0, len(ids))
        assert rows_alike(decoded, expected)
    assert whole.changed(bits=24) is whole
    for bits in (-1, 25):
        with pytest.raises(ValueError, match=f"bits is {bits}; expected 0 to 24"):
            whole.changed(bits=bits)


def test_a_model_says_how_many_bits_are_stored(split_reader):
    folder = split_reader("t5", k=1, bits=24, stored_bits=16)
    reader, whole = SplitReader.from_pretrained(folder), SplitReader.from_pretrained(folder, bits=24)
    assert (reader.bits, whole.bits) == (16, 24)
    assert reader.fingerprint == whole.changed(bits=16).fingerprint != whole.fingerprint
    [made] = reader.encode([passage(0)])
    [cut] = whole.changed(bits=16).encode([passage(0)])
    assert made.codes.shape[1] == 2
    assert np.array_equal(made.codes, cut.codes)
    for bits, expected in ((24, 16), (16, 16), (8, 8), (None, 0)):
        other = BTRForQuestionAnswering.from_reader(folder, k=1, bits=bits)
        assert other.config.kept_bits == expected
    for k, bits, settings in ((2, 24, {}), (1, 30, {}), (1, 32, {"code": "sign"})):  # new codes cannot be cut
        assert BTRForQuestionAnswering.from_reader(folder, k=k, bits=bits, settings=settings).config.kept_bits == bits


def test_a_model_says_how_many_windows_are_read(split_reader):
    folder = split_reader("t5", k=1, kept_share=0.5)
    reader = SplitReader.from_pretrained(folder)
    passages = reader.encode([passage(number) for number in range(6)])
    for given, windows in ((None, 3), (1.0, 6), (0.2, 2)):
        [found] = reader.read(["Who?"], passages, kept_share=given)
        assert len(set(found.passage.tolist())) == windows
    for k, expected in ((1, 0.5), (2, 1.0), (0, 1.0)):
        assert BTRForQuestionAnswering.from_reader(folder, k=k).config.kept_share == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_reads_the_best_windows_as_ever(family, split_reader):
    reader = SplitReader.from_pretrained(split_reader(family, k=1))
    passages = reader.encode([passage(number) for number in range(12)] + [""])
    [whole] = reader.read(["Who?"], passages)
    seen = set()
    for share, windows in ((0.01, 1), (0.25, 3), (0.5, 6), (0.99, 12)):
        [found] = reader.read(["Who?"], passages, kept_share=share, max_rows=5)
        kept = set(found.passage.tolist())
        assert len(kept) == windows
        assert seen <= kept  # more windows are these and others
        seen = kept
        chosen = np.isin(whole.passage, list(kept))
        assert np.array_equal(found.passage, whole.passage[chosen])
        assert np.array_equal(found.start, whole.start[chosen])
        assert np.allclose(found.score, whole.score[chosen], atol=1e-4)
    favoured = np.zeros(len(passages), np.float32)
    favoured[7] = 1000
    [found] = reader.read(["Who?"], passages, kept_share=0.01, passage_scores=favoured)
    assert set(found.passage.tolist()) == {7}
    assert np.allclose(found.score, whole.score[whole.passage == 7] + 1000, atol=1e-2)
    [found] = reader.read(["Who?"], passages, kept_share=0.01, prior=favoured)
    assert set(found.passage.tolist()) == {7}
    assert np.allclose(found.score, whole.score[whole.passage == 7], atol=1e-4)  # chosen by it, not scored
    [found] = reader.read(["Who?"], passages, prior=favoured)
    assert np.array_equal(found.score, whole.score)
    with pytest.raises(ModelError, match="no layer above the first upper one"):
        SplitReader.from_pretrained(split_reader(family, k=2)).read(["Who?"], [], kept_share=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_cuda_and_cpu_agree(family, split_reader):
    """A store written on one is read on the other."""
    folder = split_reader(family, k=1)
    texts = [passage(number) for number in range(6)]
    cpu, cuda = (SplitReader.from_pretrained(folder, device_map=device) for device in ("cpu", "cuda"))
    assert cpu.fingerprint == cuda.fingerprint
    for written in (cpu.encode(texts), cuda.encode(texts)):
        [ours], [theirs] = cpu.read(["Who?"], written), cuda.read(["Who?"], written)
        assert np.allclose(np.sort(ours.score), np.sort(theirs.score), atol=1e-3)


@pytest.mark.parametrize(("kind", "room"), [("bert", 24), ("t5", 100)])
def test_room_for_a_question(split_reader, kind, room, caplog):
    reader = SplitReader.from_pretrained(split_reader(kind, k=1), max_seq_length=200, stride=20)
    assert reader.question_room == room
    passages = reader.encode([passage(1)])
    question = "Who wrote forty letters from Cairo to Lisbon? " * 40
    longest = len(reader._question(question).ids[0])
    assert longest == room
    assert f"the model reads {room - reader.frame.around_question}" in caplog.text
    assert len(reader.read([question], passages)[0].score)
