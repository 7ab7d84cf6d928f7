# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Fusion-in-Decoder over a split encoder, against transformers' own T5."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import passage, rows_alike
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

from btr_haystack import (
    BTRForConditionalGeneration,
    BTRForQuestionAnswering,
    Compression,
    GenerativeReader,
    SplitReader,
)
from btr_haystack.binarise import pack_bits
from btr_haystack.citation import Cited, surface_of_ids
from btr_haystack.errors import ModelError
from btr_haystack.generative import BLOCK, View, _same_but_rounded, views_of
from btr_haystack.int8 import shrunk, whole
from btr_haystack.record import pack, unpack

QUESTIONS = ["What is the capital of Norway?", "Who was awarded the Nobel Prize?", "What?"]
TEXTS = [passage(number) for number in range(5)]


@pytest.fixture(scope="module")
def reader(generative):
    return GenerativeReader.from_pretrained(generative)


@pytest.fixture(scope="module")
def passages(reader):
    return reader.encode(TEXTS)


class Dictated(LogitsProcessor):
    """Has every answer written as told, whatever a random model thinks of it."""

    def __init__(self, *answers):
        self.answers = answers

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -1e4)
        each = len(scores) // len(self.answers)
        for row in range(len(scores)):
            tokens = self.answers[row // each]
            forced[row, tokens[min(input_ids.shape[1] - 1, len(tokens) - 1)]] = 0
        return forced + scores / 1e4


def dictated(model, *answers):
    """Meanwhile a model writes as told."""
    told = partial(model.encoder.generate, logits_processor=[Dictated(*answers)])
    return patch.object(model.encoder, "generate", told)


def assert_alike(written, expected):
    """The same texts, and scores but for rounding."""
    assert [[one.text for one in answers] for answers in written] == [
        [one.text for one in answers] for answers in expected
    ]
    for answers, others in zip(written, expected, strict=True):
        assert [one.score for one in answers] == pytest.approx([one.score for one in others], abs=1e-4)


def fused_by_hand(model, tokenizer, question):
    """Fusion-in-Decoder in plain transformers: each row for itself, then one behind another."""
    states = []
    for text in TEXTS:
        ids = tokenizer(question, text, return_tensors="pt")["input_ids"]
        states.append(model.encoder(input_ids=ids).last_hidden_state[0])
    return BaseModelOutput(last_hidden_state=torch.cat(states)[None])


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"max_new_tokens": 5, "repetition_penalty": 1.5}])
def test_joint_writing_is_fusion_in_decoder(seq2seq, settings):
    ours = GenerativeReader.from_pretrained(seq2seq)
    theirs = T5ForConditionalGeneration.from_pretrained(seq2seq).eval()
    settings = settings | {"suppress_tokens": [0]}  # padding, which a random model may write
    for question in QUESTIONS:
        [[answer]] = ours.write_jointly([question], TEXTS, **settings)
        outputs = fused_by_hand(theirs, ours.tokenizer, question)
        out = theirs.generate(
            encoder_outputs=outputs,
            output_logits=True,
            return_dict_in_generate=True,
            **{"max_new_tokens": 32, **settings},
        )
        expected, citation = Cited(TEXTS, ours.token_cache, ours.tokenizer.unk_token_id).find(
            surface_of_ids(ours.tokenizer, out.sequences[0].tolist())
        )
        assert (answer.text, answer.citation) == (expected, citation)
        if "num_beams" not in settings:
            each = [
                logits.log_softmax(-1)[0, token] for logits, token in zip(out.logits, out.sequences[0, 1:], strict=True)
            ]
            assert answer.score == pytest.approx(torch.stack(each).mean().item(), abs=1e-4)
        else:
            labels = out.sequences[:, 1:]
            outputs = fused_by_hand(theirs, ours.tokenizer, question)  # beams have multiplied the others
            logits = theirs(encoder_outputs=outputs, decoder_input_ids=out.sequences[:, :-1]).logits
            each = logits.log_softmax(-1).gather(2, labels[..., None])[0, : int(labels[0].nonzero().max()) + 1, 0]
            assert answer.score == pytest.approx(each.mean().item(), abs=1e-4)


def test_split_writing_is_the_same_model_run_layer_by_layer(reader, passages):
    model, question = reader.model, QUESTIONS[0]
    [[answer]] = reader.write([question], passages)
    states = []
    with torch.inference_mode():
        asked = model.lower(torch.tensor([reader.tokenizer(question)["input_ids"]]), None, passage=False)
        for text in TEXTS:
            ids = torch.tensor([reader.tokenizer(text)["input_ids"]])
            below = model.lower(ids, None, passage=True)
            decoded, _ = model.recode(below[0], ids[0])
            rows = torch.cat([asked, decoded[None]], 1)
            states.append(model.upper(rows, None)[0])
        out = model.encoder.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.cat(states)[None]), max_new_tokens=32
        )
    assert answer.text == reader.tokenizer.decode(out[0], skip_special_tokens=True).strip()


def test_questions_together_and_apart(reader, passages):
    together = reader.write(QUESTIONS, passages)
    for question, [one] in zip(QUESTIONS, together, strict=True):
        [[alone]] = reader.write([question], passages, max_rows=2)
        assert alone.text == one.text
        assert alone.score == pytest.approx(one.score, abs=1e-4)


def test_several_answers(reader, passages):
    [answers] = reader.write(QUESTIONS[:1], passages, answers=3)
    assert len(answers) == 3
    assert [one.score for one in answers] == sorted((one.score for one in answers), reverse=True)
    sampled = reader.write(QUESTIONS, passages, answers=2, do_sample=True, max_new_tokens=4)
    assert [len(one) for one in sampled] == [2, 2, 2]


def test_generation_settings(reader, passages):
    tokens = reader.tokenizer("Oslo is the capital of Norway")["input_ids"]

    def text(count):
        return reader.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip()

    def write(**settings):
        with dictated(reader.model, tokens):
            [[answer]] = reader.write(QUESTIONS[:1], passages, **settings)
        return answer.text

    assert write() == "Oslo is the capital of Norway"
    config = {"max_new_tokens": 3, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    assert write(generation_config=GenerationConfig(**config)) == write(generation_config=config) == text(3)
    assert write(max_new_tokens=5) == text(5)
    assert write(max_length=5) == text(4)  # the token that decoding starts from counts
    assert write(generation_config=GenerationConfig(max_new_tokens=30, stop_strings=["is"])) == "Oslo is"
    assert write(stop_strings=["is"], max_new_tokens=30) == "Oslo is"
    several = reader.write(QUESTIONS, passages, answers=2, generation_config={"do_sample": True, "max_new_tokens": 4})
    assert [len(one) for one in several] == [2, 2, 2]


def test_scores_are_of_each_answers_own_tokens(reader):
    """Answers of unlike length are padded behind their end."""
    fused, model = View(torch.randn(3, 9, 32), torch.ones(3, 9)), reader.model.encoder
    for settings in ({"num_beams": 4, "num_return_sequences": 4}, {}):
        with dictated(reader.model, [5, 6, 1], [7, 1], [8, 9, 10, 11, 12]):
            written, scores = reader.model.write([fused], max_new_tokens=5, **settings)
        states = fused.states.repeat_interleave(len(written) // 3, 0)
        start = torch.zeros(len(written), 1, dtype=torch.long)
        with torch.no_grad():
            out = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                decoder_input_ids=torch.cat([start, written[:, :-1]], 1),
            )
        each = out.logits.log_softmax(-1).gather(2, written[..., None])[..., 0]
        lengths = []
        for row, tokens in enumerate(written.tolist()):
            lengths.append(tokens.index(1) + 1 if 1 in tokens else len(tokens))
            assert scores[row].item() == pytest.approx(each[row, : lengths[-1]].mean().item(), abs=1e-3)
        assert len(set(lengths)) > 1


def test_merging_nothing_is_the_upper_layers(reader, passages):
    _, joined = reader._joined(passages, None)
    asked = reader._question(QUESTIONS[0])
    joint, mask = next((joint, mask) for _, joint, mask in joined(asked) if mask is not None)
    with torch.inference_mode():
        merged, sizes = reader.model.upper_merged(joint, mask, asked.ids.shape[1], 0.0, 2)
        plain = reader.model.upper(joint, mask)
        in_two = reader.model.upper(reader.model.first_upper(joint, mask), mask, first=reader.model.config.k + 1)
        assert torch.allclose(in_two, plain, atol=1e-5)
        assert torch.equal(sizes, mask.float())
        torch.testing.assert_close(merged[mask.bool()], plain[mask.bool()], atol=1e-4, rtol=1e-4)
        fewer, sizes = reader.model.upper_merged(joint, mask, asked.ids.shape[1], 0.3, 2)
    assert sizes.sum(1).tolist() == mask.sum(1).tolist()
    assert (sizes[:, : asked.ids.shape[1]] == 1).all()
    assert fewer.shape[1] < merged.shape[1]


@pytest.mark.parametrize("compression", [None, Compression(across=0.2)])
def test_pruning_writes_from_the_windows_that_are_kept(reader, passages, compression):
    """Those that the extractive reader keeps, in their order, and nothing of the others."""
    extractive = SplitReader(reader.model, reader.tokenizer)
    for question in QUESTIONS:
        for share in (0.2, 0.5):
            [spans] = extractive.read([question], passages, kept_share=share)
            kept = sorted(set(spans.passage.tolist()))
            assert len(kept) == (1 if share == 0.2 else 3)
            [[expected]] = reader.write([question], [passages[i] for i in kept], compression=compression)
            [[found]] = reader.write([question], passages, compression=compression, kept_share=share, max_rows=2)
            assert found.text == expected.text
            assert found.score == pytest.approx(expected.score, abs=1e-4)
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=f"kept_share is {share}; expected a share above 0 and up to 1"):
            reader.write(QUESTIONS[:1], passages, kept_share=share)


@pytest.mark.parametrize("scale", ["predicted", "stored"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_merged_passages_are_those_of_the_naive_algorithm(generative, share, scale):
    reader = GenerativeReader.from_pretrained(generative, merged_share=share, max_seq_length=48 + 21, stride=4)
    reader.model.config.scale = scale
    whole = reader.changed(merged_share=0.0)
    assert whole.fingerprint != reader.fingerprint
    model, texts = reader.model, [*TEXTS, "", "Oslo.", " ".join(TEXTS)]
    for made, plain in zip(reader.encode(texts), whole.encode(texts), strict=True):
        assert np.array_equal(made.ids, plain.ids)
        assert np.array_equal(made.windows, plain.windows)
        assert plain.gone is None
        codes, scales, first, left = [], [], 0, 0
        every = np.zeros(len(made.ids), np.bool_) if made.gone is None else made.gone
        for _, length in made.windows.tolist():
            ids = torch.from_numpy(made.ids[first : first + length]).long()
            with torch.inference_mode():
                exact = model.lower(ids[None], None, passage=True)[0]
                states = model.family.calibrate(exact)
            may = plain.kept[first : first + length].copy()
            may[-1] = False  # the closing token
            alike = [
                (-torch.cosine_similarity(states[i], states[j], dim=0).item(), i, j)
                for i in range(0, length, 2) if may[i]
                for j in range(1, length, 2) if may[j]
            ]  # fmt: skip
            best = {i: min(one for one in alike if one[1] == i) for _, i, _ in alike}
            going = {i: j for _, i, j in sorted(best.values())[: int(share * length)]}
            gone = np.array([i in going for i in range(length)], np.bool_)
            assert np.array_equal(every[first : first + length], gone)
            for j in range(length):
                those = [i for i, into in going.items() if into == j]
                mean = model.family.restore(states[[j, *those]].mean(0)[None]) if those else exact[j : j + 1]
                with torch.inference_mode():
                    bits, _, scaled = model.code(mean, ids[j : j + 1])
                scales.append(scaled)
                if plain.kept[first + j] and j not in going:
                    codes.append(pack_bits(bits))
            first, left = first + length, left + int((~gone).sum())
        assert rows_alike(made.codes, torch.cat(codes).numpy() if codes else made.codes[:0])
        short = made.without_gone()
        assert (len(short.ids), int(short.windows[:, 1].sum())) == (left, left)
        assert np.array_equal(short.kept, made.kept[~every])
        if scale == "stored" and scales:
            assert np.array_equal(made.scales, torch.cat(scales).numpy())
        again = unpack(pack(made)).gone
        assert np.array_equal(again, made.gone) if every.any() else again is made.gone is None


def test_merged_passages_are_written_from_and_not_read(generative, reader):
    merging = GenerativeReader.from_pretrained(generative, merged_share=0.4)
    fewer, passages = merging.encode(TEXTS), reader.encode(TEXTS)
    assert [len(one.without_gone().ids) < len(whole.ids) for one, whole in zip(fewer, passages, strict=True)] == [
        True
    ] * 5
    [[short]] = merging.write(QUESTIONS[:1], fewer)
    [[again]] = merging.write(QUESTIONS[:1], [unpack(pack(one)) for one in fewer])
    assert (again.text, again.score) == (short.text, pytest.approx(short.score, abs=1e-5))
    with pytest.raises(ModelError, match="spans need every token's place"):
        merging.read(QUESTIONS[:1], fewer)
    with pytest.raises(ValueError, match=r"merged_share is 0\.6; expected a share of the tokens from 0 to 0\.5"):
        merging.changed(merged_share=0.6)


@pytest.mark.parametrize("other", [False, True])
def test_embeddings_are_known_again_in_8_bits(other):
    """A base that was kept in 8 bits and a decoder that was not still share one matrix; strangers do not."""
    one = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    rounded = whole(shrunk({"encoder.w": one}))["encoder.w"]
    assert not torch.equal(rounded.float(), one)
    if other:
        rounded[7, 3] += 0.05 * rounded[7].abs().max()
    assert _same_but_rounded(one, rounded) is not other


def test_threads_write_at_the_same_time(reader, passages):
    """Each sees its own passages, merged or not."""
    jobs = [(question, compression) for question in QUESTIONS for compression in (None, Compression(0.2, 0.2, 1))] * 4

    def write(job):
        return reader.write([job[0]], passages, compression=job[1], min_new_tokens=6)

    alone = [write(job) for job in jobs]
    with ThreadPoolExecutor(6) as threads:
        for found, expected in zip(threads.map(write, jobs), alone, strict=True):
            assert_alike(found, expected)


def test_the_decoders_own_views_change_nothing_where_nothing_is_merged(reader, passages):
    fused = View(torch.randn(2, 7, 32), torch.tensor([[1.0] * 7, [1.0] * 5 + [0.0] * 2]))
    for settings in ({}, {"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}):
        one = reader.model.write([fused], **settings)
        four = reader.model.write([fused] * 4, **settings)  # by way of the layers' own views
        assert torch.equal(one[0], four[0])
        torch.testing.assert_close(one[1], four[1], atol=1e-4, rtol=1e-4)


def test_equal_tokens_are_merged_without_loss(reader):
    """Attention to one token of size 2 is attention to the two equal ones that it stands for."""
    half = torch.randn(1, 6, 32)
    twice = View(half.repeat_interleave(2, 1), torch.ones(1, 12))
    views = views_of(twice, 4, 0.5, 4)
    assert views[0].states.shape[1] == 6
    assert views[0].sizes.tolist() == [[2.0] * 6]
    (ours, score), (theirs, expected) = reader.model.write(views), reader.model.write([twice])
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(score, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reader.model.write(views[:1])[1], score, atol=1e-4, rtol=1e-4)


def test_compression_shortens_what_the_decoder_sees(reader, passages, monkeypatch):
    seen = {}

    def note(views, **settings):
        seen["tokens"] = [int((view.sizes > 0).sum()) for view in views]
        seen["whole"] = [view.sizes.sum().item() for view in views]
        return torch.tensor([[1]]), torch.tensor([0.0])

    monkeypatch.setattr(reader.model, "write", note)
    reader.write(QUESTIONS[:1], passages)
    [plain] = seen["tokens"]
    inside = 0
    asked = len(reader.tokenizer(QUESTIONS[0])["input_ids"])
    for one in passages:
        left = len(one.ids)
        for _ in range(2):  # upper layers, after each of which a fifth of what is left goes
            left -= int(0.2 * left)
        inside += asked + left
    reader.write(QUESTIONS[:1], passages, compression=Compression(inside=0.2))
    assert set(seen["tokens"]) == {inside}
    reader.write(QUESTIONS[:1], passages, kept_share=0.5)
    [pruned] = seen["tokens"]
    reader.write(QUESTIONS[:1], passages, kept_share=0.5, compression=Compression(inside=0.2))
    assert max(seen["tokens"]) < pruned < plain
    assert set(seen["whole"]) == {pruned}
    reader.write(QUESTIONS[:1], passages, compression=Compression(across=0.2, every=2))
    assert seen["tokens"][0] == seen["tokens"][1] > seen["tokens"][2] == seen["tokens"][3]
    assert seen["tokens"][0] == pytest.approx(0.8 * plain, abs=2)
    assert seen["whole"] == pytest.approx([plain] * 4)


@pytest.mark.parametrize("compression", [Compression(0.2), Compression(0.0, 0.2, 2), Compression(0.3, 0.3, 1)])
def test_compressed_writing(reader, passages, compression):
    together = reader.write(QUESTIONS, passages, compression=compression, num_beams=2)
    for question, [one] in zip(QUESTIONS, together, strict=True):
        [[alone]] = reader.write([question], passages, compression=compression, num_beams=2)
        assert alone.text == one.text
        assert alone.score == pytest.approx(one.score, abs=1e-3)


def test_merging_in_blocks_is_linear_and_keeps_all(reader):
    tokens = BLOCK + 700
    view = View(torch.randn(1, tokens, 8), torch.ones(1, tokens))
    [merged] = views_of(view, 1, 0.25, 3)
    assert merged.sizes.sum() == tokens
    assert merged.states.shape[1] == tokens - BLOCK // 4 - 700 // 4


def test_one_store_two_readers(generative, reader, passages):
    finder = SplitReader.from_pretrained(generative)
    assert finder.fingerprint == reader.fingerprint
    assert type(AutoModelForQuestionAnswering.from_pretrained(generative)) is BTRForQuestionAnswering
    [spans], [same] = (one.read(QUESTIONS[:1], passages) for one in (finder, reader))
    assert spans.score.tolist() == pytest.approx(same.score.tolist(), abs=1e-4)
    assert len(spans.score)


@pytest.mark.parametrize("style", ["fid", "atlas"])
def test_published_names(seq2seq, tmp_path, style):
    """FiD wraps the encoder and each of its blocks; Atlas has a reader beside a retriever."""
    weights = load_file(seq2seq / "model.safetensors")
    named = {}
    for name, weight in weights.items():
        if style == "atlas":
            named[f"reader.{name}"] = weight
        elif name.startswith("encoder.block."):
            number, rest = name.removeprefix("encoder.block.").split(".", 1)
            named[f"encoder.encoder.block.{number}.module.{rest}"] = weight
        else:
            named[name.replace("encoder.", "encoder.encoder.", 1) if name.startswith("encoder.") else name] = weight
    assert named.keys() != weights.keys()
    for file in seq2seq.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(named, tmp_path / "model.safetensors", {"format": "pt"})
    ours, same = (GenerativeReader.from_pretrained(folder) for folder in (tmp_path, seq2seq))
    assert_alike(ours.write_jointly(QUESTIONS, TEXTS), same.write_jointly(QUESTIONS, TEXTS))


def test_a_decoder_put_on_a_reader_saved_alone(split_reader):
    """The configuration of an encoder alone says that there is no decoder."""
    folder = split_reader("t5")
    finder = BTRForQuestionAnswering.from_pretrained(folder)
    assert not finder.config.encoder.is_encoder_decoder
    model = BTRForConditionalGeneration(finder.config).eval()
    model.load_state_dict(finder.state_dict(), strict=False)
    reader = GenerativeReader(model, AutoTokenizer.from_pretrained(folder))
    assert len(reader.write(QUESTIONS, reader.encode(TEXTS), min_new_tokens=3)) == len(QUESTIONS)


def test_saved_and_loaded(reader, passages, tmp_path):
    reader.model.save_pretrained(tmp_path)
    reader.tokenizer.save_pretrained(tmp_path)
    GenerationConfig(num_beams=3, max_new_tokens=7, decoder_start_token_id=0).save_pretrained(tmp_path)
    beams = GenerativeReader.from_pretrained(tmp_path)
    assert beams.model.encoder.generation_config.num_beams == 3
    assert_alike(beams.write(QUESTIONS, passages), reader.write(QUESTIONS, passages, num_beams=3, max_new_tokens=7))
    reader.model.save_pretrained(tmp_path)
    again = GenerativeReader.from_pretrained(tmp_path)
    assert again.fingerprint == reader.fingerprint
    assert_alike(again.write(QUESTIONS, passages), reader.write(QUESTIONS, passages))


def test_refusals(reader, passages, seq2seq, plain_reader, split_reader):
    with pytest.raises(ModelError, match=r"has no decoder and cannot write: .* weights such as encoder\.decoder"):
        GenerativeReader.from_pretrained(split_reader("t5"))
    with pytest.raises(ModelError, match="'bert' has no decoder and cannot write"):
        GenerativeReader.from_pretrained(plain_reader("bert"))
    with pytest.raises(ModelError, match="use write_jointly"):
        GenerativeReader.from_pretrained(seq2seq).write(QUESTIONS, passages)
    with pytest.raises(ValueError, match="the reader is joint"):
        reader.write_jointly(QUESTIONS, TEXTS, compression=Compression(inside=0.1))
    for wrong in ({"inside": 0.6}, {"across": -0.1}, {"inside": "much"}, {"inside": True}):
        with pytest.raises(ValueError, match=r"expected a share of the tokens from 0 to 0\.5"):
            Compression(**wrong)
    with pytest.raises(ValueError, match="every is 0"):
        Compression(every=0)


def test_nothing_to_read(reader):
    assert reader.write(QUESTIONS, reader.encode([""])) == [[], [], []]
    assert reader.write(QUESTIONS, []) == [[], [], []]
    assert reader.write_jointly(QUESTIONS, [""]) == [[], [], []]
    assert reader.write([], reader.encode(TEXTS)) == []
