# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Generation settings that a client may send: what is not in the table, or beyond its ceilings, is refused by name."""

import pytest
from conftest import passage
from haystack import Document, Pipeline
from transformers import GenerationConfig

from btr_haystack.generation_settings import check_attended
from btr_haystack.generator import GenerativeReader
from haystack_integrations.components.readers.btr import BTRGenerativeReader

QUESTION = "What is the capital of Norway?"
DOCUMENTS = [Document(content=passage(number)) for number in range(3)]
REFUSED = [
    {"custom_generate": "someone/repository", "trust_remote_code": True},
    {"custom_generate": print},
    {"trust_remote_code": True},
    {"assistant_model": "someone/model"},
    {"assistant_tokenizer": "someone/model"},
    {"cache_implementation": "paged"},
    {"prompt_lookup_num_tokens": 3},
    {"watermarking_config": {"bias": 2.0}},
    {"compile_config": {"backend": "inductor"}},
    {"logits_processor": [print]},
    {"stopping_criteria": [print]},
    {"streamer": print},
    {"force_words_ids": [[1]]},
    {"constraints": []},
    {"num_beam_groups": 2},
    {"penalty_alpha": 0.6},
    {"dola_layers": "high"},
    {"guidance_scale": 2.0},
    {"sequence_bias": [[[1], 2.0]]},
    {"token_healing": True},
    {"use_mtp": True},
    {"inputs": [1]},
    {"decoder_input_ids": [[0]]},
    {"past_key_values": 1},
    {"synced_gpus": True},
    {"unheard_of": 1},
    {7: 7},
    {"prefix_allowed_tokens_fn": "os.system"},
    {"use_cache": False},
    {"output_scores": True},
    {"num_beams": 25},
    {"num_beams": 10**6},
    {"num_beams": 10**5000},
    {"num_beams": 2.5},
    {"num_beams": True},
    {"max_new_tokens": 0},
    {"max_new_tokens": 1025},
    {"max_new_tokens": "9"},
    {"max_length": 10**9},
    {"min_new_tokens": 10**9},
    {"max_time": -1},
    {"max_time": float("inf")},
    {"temperature": 0},
    {"temperature": float("nan")},
    {"temperature": 10**400},
    {"top_p": 1.5},
    {"top_k": -1},
    {"repetition_penalty": 0.0},
    {"length_penalty": 1e9},
    {"no_repeat_ngram_size": 10**9},
    {"stop_strings": ""},
    {"stop_strings": []},
    {"stop_strings": ["x"] * 17},
    {"stop_strings": "x" * 65},
    {"stop_strings": [7]},
    {"bad_words_ids": [[1]] * 1001},
    {"bad_words_ids": [[1] * 65]},
    {"bad_words_ids": [[]]},
    {"bad_words_ids": [["a"]]},
    {"suppress_tokens": [1] * 1001},
    {"eos_token_id": [1] * 17},
    {"eos_token_id": -1},
    {"early_stopping": "always"},
    {"do_sample": "yes"},
]
ALONE = [  # nothing of a GenerationConfig
    "custom_generate", "trust_remote_code", "assistant_model", "assistant_tokenizer", "logits_processor", "inputs",
    "stopping_criteria", "streamer", "decoder_input_ids", "past_key_values", "synced_gpus", 7,
    "prefix_allowed_tokens_fn",
]  # fmt: skip


@pytest.fixture(scope="module")
def writer(generative):
    return BTRGenerativeReader(generative)


@pytest.fixture(scope="module")
def engine(generative):
    return GenerativeReader.from_pretrained(generative)


@pytest.mark.parametrize("settings", REFUSED, ids=lambda one: str(next(iter(one))))
def test_refused_by_name(writer, engine, settings):
    """In a run, the constructor, a saved component, a configuration, and in the engine."""
    name = next(iter(settings))
    told = rf"{name} is .*(expected|can be given)"
    for given in (settings, {"generation_config": settings}):
        with pytest.raises(ValueError, match=told):
            writer.run(QUESTION, DOCUMENTS, generation_kwargs=given)
        with pytest.raises(ValueError, match=told):
            BTRGenerativeReader("a/model", generation_kwargs=given)
        data = BTRGenerativeReader("a/model").to_dict()
        data["init_parameters"]["generation_kwargs"] = given
        with pytest.raises(ValueError, match=told):
            BTRGenerativeReader.from_dict(data)
    if name not in ALONE:
        config = GenerationConfig()
        vars(config).update(settings)
        with pytest.raises(ValueError, match=told):
            writer.run(QUESTION, DOCUMENTS, generation_kwargs={"generation_config": config})
    if isinstance(name, str):
        with pytest.raises(ValueError, match=told):
            engine.write([QUESTION], engine.encode(["Oslo"]), **settings)
        with pytest.raises(ValueError, match=told):
            engine.write_jointly([QUESTION], ["Oslo"], **settings)
    assert writer._loaded is None  # before any work


def test_too_much_together(writer):
    for given in ({"num_beams": 24, "max_new_tokens": 86}, {"num_beams": 3, "max_length": 1000}):
        for kwargs in (given, {"generation_config": given}):
            with pytest.raises(ValueError, match=r"beams or answers of up to \d+ tokens are .*expected at most 2048"):
                writer.run(QUESTION, DOCUMENTS, generation_kwargs=kwargs)
    with pytest.raises(ValueError, match="24 beams or answers of up to 1024 tokens"):
        writer.run(QUESTION, DOCUMENTS, top_k=24, generation_kwargs={"max_new_tokens": 1024})
    with pytest.raises(ValueError, match="top_k is 1000000; expected at most 24"):
        writer.run(QUESTION, DOCUMENTS, top_k=10**6)
    with pytest.raises(ValueError, match="top_k is 25"):
        BTRGenerativeReader("a/model", top_k=25)
    check_attended(10_000, 6)
    with pytest.raises(ValueError, match="1 beams or answers over 1000000000 tokens"):  # 28 KB each
        check_attended(10**9, 1)
    with pytest.raises(ValueError, match="24 beams or answers over 10000 tokens of passages"):
        check_attended(10_000, 24)


def test_a_pipeline_of_a_stranger(generative):
    pipeline = Pipeline()
    pipeline.add_component("reader", BTRGenerativeReader(generative, generation_kwargs={"num_beams": 2}))
    saved = pipeline.dumps()
    assert "num_beams: 2" in saved
    evil = saved.replace("num_beams: 2", "custom_generate: someone/repository\n        trust_remote_code: true")
    with pytest.raises(Exception, match="custom_generate is 'someone/repository'"):
        Pipeline.loads(evil)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 4, "min_new_tokens": 2, "num_beams": 3, "length_penalty": 0.5, "early_stopping": True},
        {"max_length": 6, "do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "typical_p": 0.9},
        {"max_new_tokens": 4, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": [[5], [6, 7]]},
        {"max_new_tokens": 4, "stop_strings": ["a", "Oslo"], "suppress_tokens": [4], "eos_token_id": [1]},
        {"generation_config": {"num_beams": 2, "max_new_tokens": 3, "num_beam_groups": None}},
        {"generation_config": GenerationConfig(max_new_tokens=3, num_beams=2), "use_cache": True, "num_beams": None},
        {"prefix_allowed_tokens_fn": lambda _row, _written: [1, 5], "max_new_tokens": 3},
        {"max_new_tokens": 200, "eos_token_id": list(range(2, 10)), "max_time": 5.0},
    ],
)
def test_what_users_set(writer, settings):
    [answer] = writer.run(QUESTION, DOCUMENTS, generation_kwargs=settings)["answers"]
    assert answer.meta["score"] <= 0


@pytest.mark.parametrize("name", ["forced_bos_token_id", "decoder_start_token_id", "suppress_tokens", "bad_words_ids"])
def test_ids_that_the_vocabulary_lacks(writer, documents, name):
    value = {"suppress_tokens": [4000], "bad_words_ids": [[1, 4000]]}.get(name, 4000)
    with pytest.raises(ValueError, match=f"{name} is .*4000.*; expected token ids below"):
        writer.run("Who?", documents, generation_kwargs={name: value})
