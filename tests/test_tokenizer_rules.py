# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that a stranger made: programs that panic, never end, or make very many tokens of one character."""

import base64
import copy
import json
import shutil
from pathlib import Path

import pytest
from conftest import FAMILIES
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from btr_haystack.default import default_model_path
from btr_haystack.errors import ModelError
from btr_haystack.model_files import tokenizer_of
from btr_haystack.reader import SplitReader
from btr_haystack.tokenizer_rules import check_tokenizer
from btr_haystack.windows import frame_of, tokenise

MANY = 300_000


def replaced(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(trie, expansions):
    return base64.b64encode(len(trie).to_bytes(4, "little") + trie + expansions).decode()


def frame(count):
    return [{"Sequence": {"id": "A", "type_id": 0}}, *[{"SpecialToken": {"id": "[SEP]", "type_id": 0}}] * count]


PARTS = [
    ("normalizer", replaced({"String": "a"}, "a" * MANY)),
    ("normalizer", replaced({"Regex": "(a+)+$"}, " ")),
    ("normalizer", replaced({"Regex": " {2,}"}, "a" * MANY)),
    ("normalizer", replaced({"Regex": " {2,}", "String": " "}, " ")),
    ("normalizer", replaced({"Regex": 7}, " ")),
    ("normalizer", replaced("a", "b")),
    ("normalizer", {"type": "Prepend", "prepend": "a" * MANY}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": charsmap(bytes(1024), b"a" * MANY)}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "not base64"}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, replaced({"Regex": "(a|a)*b"}, "")]}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKD"}] * 1000}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [{"type": "Sequence"}]}]}),
    ("normalizer", {"type": "ByteLevel"}),
    ("normalizer", {"type": ["NFC"]}),
    ("normalizer", "NFC"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "a", "prepend_scheme": "always", "split": True}),
    ("pre_tokenizer", {"type": "BertPreTokenizer", "pattern": "a"}),
    (
        "post_processor",
        {"type": "TemplateProcessing", "single": frame(1), "pair": frame(9999), "special_tokens": {}},
    ),
    (
        "post_processor",
        {
            "type": "TemplateProcessing",
            "single": frame(1),
            "pair": frame(1),
            "special_tokens": {"[SEP]": {"id": "[SEP]", "ids": [3] * MANY, "tokens": ["[SEP]"] * MANY}},
        },
    ),
    ("decoder", {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}),
    ("decoder", {"type": "Sequence", "decoders": [replaced({"Regex": "(a+)+$"}, "")]}),
    ("decoder", {"type": "WordPiece", "prefix": "#" * MANY, "cleanup": True}),
    ("padding", {"strategy": {"Fixed": MANY}, "direction": "Right"}),
    ("added_tokens", [{"id": 1, "content": "a", "single_word": True, "special": False}]),
    ("added_tokens", [{"id": 1, "content": "", "special": False}]),
    ("added_tokens", [{"id": 1, "content": "a" * MANY, "special": False}]),
    ("added_tokens", [{"id": -1, "content": "a", "special": False}]),
    ("added_tokens", [{"id": 1, "content": "a", "special": False}] * MANY),
    ("added_tokens", "a"),
    ("model", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
    ("model", {"type": "WordPiece", "vocab": {}}),
    ("model", {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 10**9}),
    ("model", {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 100}),
    ("model", {"type": "WordPiece", "vocab": {"a": 2**40}}),
    ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}),
    ("model", {"type": "BPE", "vocab": {"a" * MANY: 0}, "merges": []}),
    ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
    ("model", {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": 0}),
    ("model", {"type": "Unigram", "vocab": [["a", float("nan")]], "unk_id": 0}),
    ("model", {"type": "Unigram", "vocab": [["a" * i, -1.0] for i in range(1, 2000)], "unk_id": 0}),
    ("model", {"type": "Unigram", "vocab": {"a": 0}, "unk_id": 0}),
    ("model", None),
]


@pytest.mark.parametrize("number", range(len(PARTS)))
def test_parts_that_no_family_has(split_reader, tmp_path, number):
    folder = Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))
    rules = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    name, part = PARTS[number]
    rules[name] = part
    (folder / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"its tokenizer cannot be loaded: tokenizer\.json: .*expected the parts"
    ) as told:
        SplitReader.from_pretrained(folder)
    assert len(str(told.value)) < 800 + len(str(folder))


CONFIGS = [
    {"auto_map": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}},
    {"auto_map": ["evil.Slow", None]},
    {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]},
    {"tokenizer_class": "EvilTokenizer"},
    {"tokenizer_class": "ByT5Tokenizer"},
    {"tokenizer_class": ["BertTokenizer"]},
    {"vocab_file": "/etc/passwd"},
    {"spm_file": "../other"},
    {"init_inputs": ["/etc/passwd"]},
    {"gguf_file": "x.gguf"},
    {"extra_ids": 10**9},
    {"extra_ids": -1},
    {"added_tokens_decoder": {"99999999999": {"content": "a"}}},
    {"added_tokens_decoder": {str(number): {"content": f"a{number}"} for number in range(9999)}},
    {"additional_special_tokens": [f"a{number}" for number in range(9999)]},
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_settings_that_ask_for_more(split_reader, tmp_path, monkeypatch, number):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked on the terminal"))
    folder = Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")) | CONFIGS[number]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    [name] = CONFIGS[number]
    with pytest.raises(ModelError, match=rf"tokenizer_config\.json: {name} is .*, which is not read here"):
        SplitReader.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_parts_that_come_from_other_files(split_reader, tmp_path):
    """What the tokenizer is when it has been built is checked as well."""
    folder = Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": {"content": "m", "single_word": True}}), encoding="utf-8"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelError, match="as built: it has the added token"):
        SplitReader.from_pretrained(folder)


@pytest.mark.parametrize("added", [{"a": 10**10}, {"a": -1}, {"a": "b"}, [], {f"a{n}": n for n in range(9999)}])
def test_tokens_that_are_added(split_reader, tmp_path, added):
    folder = Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))
    (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    with pytest.raises(ModelError, match=r"added_tokens\.json: expected at most 5000 tokens with ids up to 1048575"):
        SplitReader.from_pretrained(folder)


def test_a_panic_is_told_as_damage():
    """A table whose trie leads out of it."""
    outside = (0x3FFFFF << 10).to_bytes(4, "little") * 256
    table = charsmap(outside, b"a\0")
    rules = {"version": "1.0", "normalizer": {"type": "Precompiled", "precompiled_charsmap": table}}
    rules["model"] = {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0]], "unk_id": 0}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)))
    with pytest.raises(ModelError, match="the model's tokenizer failed"):
        tokenise(tokenizer, ["a b"])
    with pytest.raises(ModelError, match="does not encode a pair"):
        frame_of(tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_of_the_families(split_reader, plain_reader, family):
    for folder in (split_reader(family), plain_reader(family)):
        ours, theirs = tokenizer_of(folder), AutoTokenizer.from_pretrained(folder)
        assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()


def test_the_shipped_tokenizer():
    rules = json.loads((default_model_path() / "tokenizer.json").read_text(encoding="utf-8"))
    check_tokenizer(rules, "ours")
    damaged = copy.deepcopy(rules)
    table = base64.b64decode(damaged["normalizer"]["precompiled_charsmap"]).rstrip(b"\0") + b"a" * MANY
    damaged["normalizer"]["precompiled_charsmap"] = base64.b64encode(table).decode()
    with pytest.raises(ModelError, match="precompiled_charsmap of its normalizer Precompiled is"):
        check_tokenizer(damaged, "ours")


def test_a_vocabulary_alone(split_reader, tmp_path):
    """Old models come without tokenizer.json."""
    folder = Path(shutil.copytree(split_reader("bert"), tmp_path / "model"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    assert SplitReader.from_pretrained(folder).tokenizer.get_vocab() == vocabulary


def test_what_sentencepiece_gives(tmp_path):
    """The parts that transformers makes of a model of SentencePiece, in older releases and in newer ones."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, False))
    mark = "\u2581"
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), mark),
        ]
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(mark, prepend_scheme="always")]
    )
    check_tokenizer(json.loads(tokenizer.to_str()), "of SentencePiece")
    check_tokenizer(json.loads(BertTokenizer(vocab={"[UNK]": 0, "a": 1}).backend_tokenizer.to_str()), "of BERT")
