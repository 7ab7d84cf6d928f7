# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Model folders that a stranger made: refused before anything runs, or much memory is taken; honest ones load."""

import builtins
import json
import os
import pickle
import random
import resource
import shutil
import socket
from pathlib import Path

import pytest
import torch
from haystack import Document
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from btr_haystack import BTRForQuestionAnswering
from btr_haystack.errors import BTRError, ModelError
from btr_haystack.generator import GenerativeReader
from btr_haystack.int8 import MARK
from btr_haystack.model_files import config_of, model_files, tokenizer_of
from btr_haystack.reader import SplitReader
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader, BTRReader

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "60"))
QUESTION = "What is the capital of Norway?"
DOCUMENTS = [Document(content="Oslo is the capital of Norway.")]


class Evil:
    """Leaves a file when it is taken out of a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(split_reader, tmp_path):
    """A good model, to be made a bad one."""
    return Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))


@pytest.fixture(autouse=True)
def nobody_at_the_terminal(monkeypatch):
    def asked(prompt=""):
        pytest.fail(f"asked on the terminal: {prompt}")

    monkeypatch.setattr(builtins, "input", asked)


def change(path, **fields):
    """Other fields in a file of JSON; those that are None go."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    settings |= fields
    path.write_text(
        json.dumps({name: value for name, value in settings.items() if value is not None}), encoding="utf-8"
    )


def sharded(folder, names):
    """The weights in as many files as there are names, and an index that names them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    place = {name: names[number % len(names)] for number, name in enumerate(sorted(weights))}
    for shard in set(names):
        if shard.endswith(".safetensors") and "/" not in shard:
            save_file({name: weights[name] for name, at in place.items() if at == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": place}), encoding="utf-8"
    )
    return weights


class TestWeights:
    @pytest.mark.parametrize(
        "name",
        [
            "evil.bin", "../model.safetensors", "/model.safetensors", "sub/model.safetensors", "a\\b.safetensors",
            ".safetensors", "..safetensors", "evil.safetensors.bin", "evil.bin\x00.safetensors", "", 7, None, ["a"],
        ],
    )  # fmt: skip
    def test_an_index_names_safetensors_beside_it(self, folder, name):
        weights = sharded(folder, ["model-1.safetensors"])
        torch.save({**weights, "x": Evil(folder / "ran")}, folder / "evil.bin")
        shutil.copy(folder / "evil.bin", folder / "a\\b.safetensors")
        index = folder / "model.safetensors.index.json"
        change(index, weight_map=dict.fromkeys(weights, name))
        with pytest.raises(ModelError, match=r"index\.json names .*end in \.safetensors"):
            SplitReader.from_pretrained(folder)
        assert not (folder / "ran").exists()

    @pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {}}])
    def test_an_index_of_another_form(self, folder, index):
        sharded(folder, ["model-1.safetensors"])
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        with pytest.raises(ModelError, match="expected an object with a weight_map"):
            SplitReader.from_pretrained(folder)

    def test_a_pickle_by_the_name_of_safetensors(self, folder):
        weights = load_file(folder / "model.safetensors")
        torch.save({**weights, "x": Evil(folder / "ran")}, folder / "evil.bin")
        for place in ("model.safetensors", "link"):
            (folder / "model.safetensors").unlink()
            if place == "link":
                (folder / "model.safetensors").symlink_to(folder / "evil.bin")
            else:
                shutil.copy(folder / "evil.bin", folder / "model.safetensors")
            with pytest.raises(ModelError, match="no safetensors file"):
                SplitReader.from_pretrained(folder)
        assert not (folder / "ran").exists()

    def test_pickles_alone(self, folder):
        torch.save({"x": Evil(folder / "ran")}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        for load in (SplitReader.from_pretrained, BTRForQuestionAnswering.from_reader):
            with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which is not read.*save it as safetensors"):
                load(folder)
        assert not (folder / "ran").exists()

    def test_a_pipe_is_no_file(self, folder):
        """Reading one would never end."""
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
            SplitReader.from_pretrained(folder)

    def test_adapters(self, folder):
        change(folder / "adapter_config.json", base_model_name_or_path="someone/else", peft_type="LORA")
        with pytest.raises(ModelError, match="is an adapter, or comes with one"):
            SplitReader.from_pretrained(folder)

    def test_a_distributed_checkpoint_is_not_looked_at(self, folder):
        (folder / ".metadata").write_bytes(pickle.dumps(Evil(folder / "ran")))
        (folder / "__0_0.distcp").write_bytes(b"")
        SplitReader.from_pretrained(folder)
        assert not (folder / "ran").exists()

    @pytest.mark.parametrize("name", ["custom_generate", "weights_only", "gguf_file", "state_dict", "kernel_config"])
    def test_arguments_of_from_pretrained(self, folder, name):
        with pytest.raises(ValueError, match=f"{name} is 'x', which is not taken"):
            SplitReader.from_pretrained(folder, **{name: "x"})

    @pytest.mark.parametrize("name", ["revision", "subfolder"])
    @pytest.mark.parametrize("value", ["..", "../model", "a/../../b", "/etc", "", "a//b", "a\x00b"])
    def test_ways_out_of_the_folder(self, folder, name, value):
        if not value:
            SplitReader.from_pretrained(folder, **{name: value})
            return
        with pytest.raises(ValueError, match=f"{name} is .*without"):
            SplitReader.from_pretrained(folder, **{name: value})


class TestSizes:
    """Small files that would become large models; limits of memory hold for the whole process of a test."""

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"vocab_size": 4_000_000}, "has the shape"),
            ({"num_hidden_layers": 250}, "config.json means a model of"),
            ({"intermediate_size": 131_072}, "has the shape"),
            ({"hidden_size": 8192, "num_attention_heads": 1}, "has the shape"),
            ({"max_position_embeddings": 131_072}, "has the shape"),
            ({"vocab_size": 10**9}, "vocab_size is 1000000000; expected a whole number from 1 to"),
            ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
            ({"hidden_size": 10**6}, "hidden_size is 1000000"),
            ({"hidden_size": -1}, "hidden_size is -1"),
            ({"hidden_size": "32"}, "hidden_size is '32'"),
            ({"hidden_size": 0}, "hidden_size is 0; expected a whole number from 1"),
            ({"num_attention_heads": 0}, "num_attention_heads is 0"),
            ({"num_attention_heads": 5}, "cannot be"),
        ],
    )
    def test_settings_beyond_the_weights(self, folder, fields, told):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        encoder = json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"] | fields
        change(folder / "config.json", encoder=encoder)
        with pytest.raises(ModelError, match=told):
            SplitReader.from_pretrained(folder)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes

    def test_ordinary_readers_beyond_their_weights(self, plain_reader, seq2seq, tmp_path):
        """Their weights have other names, and new ones are made where some are missing."""
        for source in (plain_reader("bert"), seq2seq):
            folder = shutil.copytree(source, tmp_path / source.name)
            change(folder / "config.json", vocab_size=3_000_000)
            with pytest.raises(ModelError, match=r"config\.json means a model of"):
                SplitReader.from_pretrained(folder)

    def test_codes_beyond_their_weights(self, folder):
        change(folder / "config.json", bits=65_000, stored_bits=None)
        with pytest.raises(ModelError, match=r"binariser.* has the shape"):
            SplitReader.from_pretrained(folder)

    def test_decoders_beyond_their_weights(self, generative, tmp_path):
        folder = shutil.copytree(generative, tmp_path / "writer")
        encoder = json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"]
        change(folder / "config.json", encoder=encoder | {"num_decoder_layers": 200})
        with pytest.raises(ModelError, match=r"config\.json means a model of"):
            GenerativeReader.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("matrix", "scales"),
        [
            (torch.ones(1, 40, dtype=torch.int8), torch.ones(1000)),
            (torch.ones(40, dtype=torch.int8), torch.ones(40)),
            (torch.ones(4, 10, dtype=torch.int8), torch.ones(4, 1)),
            (torch.ones(4, 10, dtype=torch.int8), torch.ones(4, dtype=torch.float64)),
            (torch.ones(4, 10), torch.ones(4)),
            (torch.ones(4, 10, dtype=torch.int8), None),
            (None, torch.ones(4)),
        ],
    )
    def test_scales_of_another_shape(self, folder, matrix, scales):
        name = "encoder.embeddings.word_embeddings.weight"
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        weights |= {} if matrix is None else {name: matrix}
        weights |= {} if scales is None else {f"{name}.row_scale": scales}
        save_file(weights, folder / "model.safetensors", metadata=MARK)
        with pytest.raises(ModelError, match="expected a matrix of I8 with one scale a row in F32"):
            SplitReader.from_pretrained(folder)

    def test_a_header_that_lies(self, folder):
        header = json.dumps({"encoder.x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(64))
        with pytest.raises(ModelError, match="is damaged, or no safetensors file"):
            SplitReader.from_pretrained(folder)

    def test_more_tokens_than_embeddings(self, folder):
        rules = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        rules["model"]["vocab"]["oslo"] = 100_000
        (folder / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
        with pytest.raises(ModelError, match="has the token id 100000, but its model"):
            SplitReader.from_pretrained(folder)


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("auto_map", {"AutoConfig": "evil.Config", "AutoModelForQuestionAnswering": "evil.Model"}),
            ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
            ("_attn_implementation", "flash_attention_2"),
            ("attn_implementation", "someone/kernel"),
            ("_attn_implementation", {"": "someone/kernel"}),
            ("transformers_weights", "other.safetensors"),
            ("per_layer_config", {"0": {"hidden_size": 64}}),
            ("fusion_config", {"patch_embeddings": True}),
            ("configuration_files", ["config.4.0.0.json"]),
            ("hidden_act", "xielu"),
            ("dtype", "load"),
            ("hidden_dropout_prob", float("nan")),
        ],
    )
    def test_what_asks_for_more_than_settings(self, folder, plain_reader, tmp_path, name, value):
        encoder = json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"]
        plain = shutil.copytree(plain_reader("bert"), tmp_path / "plain")
        (plain / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
        change(plain / "config.json", **{name: value})
        with pytest.raises(ModelError, match=f"{name} is "):
            BTRReader(plain).run(QUESTION, DOCUMENTS)
        change(folder / "config.json", encoder=encoder | {name: value})
        with pytest.raises(ModelError, match=f"{name} is "):
            BTRReader(folder).run(QUESTION, DOCUMENTS)
        with pytest.raises(ModelError, match=f"{name} is "):
            BTRReader(second_model=plain).run(QUESTION, DOCUMENTS)
        assert not (tmp_path / "ran").exists()

    def test_what_nothing_needs_is_left_out(self, folder):
        change(folder / "config.json", num_labels=10**9, output_hidden_states=True, _name_or_path="/home/someone")
        encoder = json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder"]
        change(folder / "config.json", encoder=encoder | {"is_decoder": True, "num_labels": 10**9, "evil": [1] * 9})
        config = SplitReader.from_pretrained(folder).model.config
        assert not hasattr(config.encoder, "evil")
        assert config.num_labels == config.encoder.num_labels == 2

    @pytest.mark.parametrize("content", ["", "{", "[]", "7", '"x"', "\xff", "{}", '{"model_type": 7}', "[" * 10**5])
    def test_no_settings(self, folder, content):
        (folder / "config.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(ModelError, match=r"config\.json: (not JSON|expected an object|cannot split)"):
            SplitReader.from_pretrained(folder)

    @pytest.mark.parametrize("encoder", [None, [], {"model_type": "btr"}, {"model_type": "gpt2"}, {"model_type": {}}])
    def test_no_encoder(self, folder, encoder):
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"encoder": encoder}
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        with pytest.raises(ModelError, match=r"config\.json: "):
            SplitReader.from_pretrained(folder)

    def test_no_model_at_all(self, tmp_path):
        with pytest.raises(OSError, match=r"no config\.json in .*; expected the folder of a model"):
            SplitReader.from_pretrained(tmp_path)
        with pytest.raises(OSError, match=r"no config\.json"):
            config_of(tmp_path)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"custom_generate": "someone/repository"}, "custom_generate is 'someone/repository'"),
            ({"cache_implementation": "paged"}, "cache_implementation is 'paged'"),
            ({"num_beams": 10**6}, "num_beams is 1000000; expected 1 or more, a whole number up to 24"),
            ({"max_new_tokens": 10**9}, "max_new_tokens is 1000000000"),
            ({"num_beams": 24, "max_new_tokens": 1024}, "24 beams or answers of up to 1024 tokens"),
            ({"num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beam_groups is 2"),
            ({"watermarking_config": {"bias": 2.0}}, "watermarking_config is"),
            ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens is 3"),
            ({"use_cache": False}, "use_cache is False"),
        ],
    )
    def test_how_a_model_writes(self, generative, tmp_path, fields, told):
        folder = shutil.copytree(generative, tmp_path / "writer")
        change(folder / "generation_config.json", **fields)
        with pytest.raises(ModelError, match=rf"generation_config\.json: .*{told}"):
            GenerativeReader.from_pretrained(folder)

    def test_what_a_generation_config_says_of_itself(self, generative, tmp_path):
        folder = shutil.copytree(generative, tmp_path / "writer")
        origin = {"_from_model_config": True, "transformers_version": "4.30.0", "output_attentions": False}
        change(folder / "generation_config.json", **origin, num_beams=2, early_stopping=True)
        assert GenerativeReader.from_pretrained(folder).model.encoder.generation_config.num_beams == 2


class TestTraining:
    def test_bases_of_strangers(self, plain_reader, tmp_path, refused, squad_like):
        base = shutil.copytree(plain_reader("bert"), tmp_path / "base")
        change(base / "config.json", auto_map={"AutoConfig": "evil.Config"})
        told = refused("train", "teacher", "--base", base, "--data", squad_like, "--output", tmp_path / "out")
        assert "auto_map is" in told

    @pytest.fixture
    def squad_like(self, tmp_path):
        answer = {"text": "Oslo", "answer_start": 0}
        question = {"id": "1", "question": QUESTION, "answers": [answer]}
        paragraphs = [{"context": DOCUMENTS[0].content, "qas": [question]}]
        path = tmp_path / "three.json"
        path.write_text(json.dumps({"data": [{"title": "Oslo", "paragraphs": paragraphs}] * 2}), encoding="utf-8")
        return path


class TestHonest:
    @pytest.mark.parametrize("family", ["bert", "t5"])
    def test_shards(self, plain_reader, split_reader, tmp_path, family):
        for number, source in enumerate((split_reader(family), plain_reader(family))):
            whole = SplitReader.from_pretrained(source).model.state_dict()
            folder = shutil.copytree(source, tmp_path / str(number))
            sharded(folder, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
            parts = SplitReader.from_pretrained(folder).model.state_dict()
            assert all(torch.equal(whole[name], parts[name]) for name in whole.keys() | parts.keys())

    @pytest.mark.parametrize("shards", [1, 2])
    def test_snapshots_of_the_hub(self, plain_reader, tmp_path, monkeypatch, shards):
        """Files are links to others whose names are hashes."""
        source = Path(shutil.copytree(plain_reader("roberta"), tmp_path / "source"))
        if shards == 2:
            sharded(source, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
        cache = tmp_path / "hub" / "models--someone--reader"
        commit = "0123456789abcdef0123456789abcdef01234567"
        for part in ("blobs", "refs", f"snapshots/{commit}/inside"):
            (cache / part).mkdir(parents=True)
        (cache / "refs" / "main").write_text(commit, encoding="utf-8")
        for number, path in enumerate(sorted(source.iterdir())):
            shutil.copy(path, cache / "blobs" / f"{number:040x}")
            for place in ("..", "../inside/.."):
                link = cache / "snapshots" / commit / place.removeprefix("../").removesuffix("..") / path.name
                link.symlink_to(cache / "blobs" / f"{number:040x}")
        expected = SplitReader.from_pretrained(plain_reader("roberta")).model.state_dict()
        for where in ({}, {"revision": "main"}, {"revision": commit}, {"subfolder": "inside"}):
            reader = SplitReader.from_pretrained("someone/reader", cache_dir=tmp_path / "hub", **where)
            assert reader.model.config.name_or_path == "someone/reader"
            assert all(torch.equal(weight, expected[name]) for name, weight in reader.model.state_dict().items())

    def test_a_folder_inside(self, folder):
        inside = folder / "inside"
        inside.mkdir()
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(inside / path.name)
        assert BTRReader(folder, model_kwargs={"subfolder": "inside"}).run(QUESTION, DOCUMENTS)["answers"]

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_attention(self, folder, attention):
        kwargs = {"attn_implementation": attention, "dtype": "float32", "device_map": {"": "cpu"}, "revision": "main"}
        assert BTRReader(folder, model_kwargs=kwargs).run(QUESTION, DOCUMENTS)["answers"]

    def test_reports_name_the_model(self, seq2seq, caplog):
        BTRForQuestionAnswering.from_reader(seq2seq)
        assert f"from: {seq2seq}" in caplog.text


class TestModelKwargs:
    @pytest.mark.parametrize(
        ("kwargs", "told"),
        [
            ({"weights_only": False}, "'weights_only' = False, which is not taken"),
            ({"trust_remote_code": True}, "'trust_remote_code' = True"),
            ({"use_safetensors": False}, "'use_safetensors'"),
            ({"gguf_file": "x.gguf"}, "'gguf_file'"),
            ({"state_dict": {}}, "'state_dict'"),
            ({"from_tf": True}, "'from_tf'"),
            ({"config": "elsewhere"}, "'config'"),
            ({"key_mapping": {"(a+)+": ""}}, "'key_mapping'"),
            ({"quantization_config": {"load_in_8bit": True}}, "'quantization_config'"),
            ({"offload_folder": "elsewhere"}, "'offload_folder'"),
            ({"cache_dir": "elsewhere"}, "'cache_dir'"),
            ({"variant": "../x"}, "'variant'"),
            ({7: 7}, "7 = 7"),
            ({"token": "hf_secret"}, "has 'token', which would be saved with the component: use the parameter token"),
            ({"use_auth_token": "hf_secret"}, "use the parameter token"),
            ({"attn_implementation": "someone/kernel"}, "attn_implementation = 'someone/kernel'; expected 'eager' or"),
            ({"attn_implementation": ["eager"]}, "attn_implementation = "),
            ({"dtype": "torch.load"}, r"dtype = 'torch\.load'; expected one of float16"),
            ({"dtype": {"": "float16"}}, "dtype = "),
            ({"torch_dtype": "int8"}, "torch_dtype = 'int8'"),
            ({"device_map": {"encoder": "disk"}}, "device_map = "),
            ({"device_map": "meta"}, "device_map = 'meta'"),
            ({"subfolder": "../elsewhere"}, r"subfolder = '\.\./elsewhere'"),
            ({"revision": "/etc"}, "revision = '/etc'"),
        ],
    )
    def test_refused_by_name(self, kwargs, told):
        for kind in (BTRReader, BTRGenerativeReader, BinaryTokenStore):
            with pytest.raises(ValueError, match=told) as raised:
                kind("a/model", model_kwargs=kwargs)
            assert "hf_secret" not in str(raised.value)
            if 7 not in kwargs:
                data = kind("a/model").to_dict()
                data["init_parameters"]["model_kwargs"] = kwargs
                with pytest.raises(ValueError, match="model_kwargs has"):
                    kind.from_dict(data)

    @pytest.mark.parametrize("value", ["weights_only", ["dtype"], 7])
    def test_no_dictionary(self, value):
        for kind in (BTRReader, BTRGenerativeReader, BinaryTokenStore):
            data = kind("a/model").to_dict()
            data["init_parameters"]["model_kwargs"] = value
            for make in (lambda kind=kind: kind("a/model", model_kwargs=value), lambda d=data, k=kind: k.from_dict(d)):
                with pytest.raises(TypeError, match=r"model_kwargs is .*; expected a dictionary"):
                    make()


def test_no_network_is_asked_for_a_folder(folder, monkeypatch):
    """Whatever is missing in it."""
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, lambda *given, **_: asked.append(given) or ["no network"])
    (folder / "tokenizer_config.json").unlink()
    SplitReader.from_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BTRError):
        SplitReader.from_pretrained(folder)
    assert not asked


def test_damage_at_random(split_reader, tmp_path):
    """Each field of each file in turn becomes something else, or bytes of it do: our own errors, or none."""
    source, numbers = split_reader("bert"), random.Random(0)  # noqa: S311
    texts = {path.name: path.read_bytes() for path in source.iterdir()}
    values = [None, -1, 0, 10**12, 1e308, "", "x" * 99, [], {}, True, [[]], {"type": "Split"}]
    folder = tmp_path / "damaged"
    for _ in range(ROUNDS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        name = numbers.choice(sorted(texts))
        if name.endswith(".json") and numbers.random() < 0.7:
            settings = json.loads(texts[name])
            where, key = settings, numbers.choice(sorted(settings))
            while isinstance(where[key], dict) and where[key] and numbers.random() < 0.8:
                where = where[key]
                key = numbers.choice(sorted(where))
            where[key] = numbers.choice(values)
            (folder / name).write_text(json.dumps(settings), encoding="utf-8")
        else:
            damaged = bytearray(texts[name])
            for _ in range(numbers.randint(1, 9)):
                damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
            (folder / name).write_bytes(damaged[: numbers.choice([len(damaged), numbers.randrange(len(damaged))])])
        try:
            SplitReader.from_pretrained(folder).encode([DOCUMENTS[0].content])
        except (BTRError, ValueError) as error:
            assert str(error).strip()


def test_settings_and_tokenizers_are_read_by_themselves(folder):
    assert config_of(folder).model_type == "btr"
    assert tokenizer_of(str(folder)).backend_tokenizer.to_str() == (
        AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    )
    files = model_files(folder)
    assert model_files(files) is files
