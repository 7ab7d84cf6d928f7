# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every family, made on the spot from a seed: no test touches the network."""

import logging
import os
import re
import string
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from pathlib import Path

import pytest
import torch
from haystack import Document
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
    MPNetConfig,
    MPNetForQuestionAnswering,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForQuestionAnswering,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as hf_logging

from btr_cli.main import main
from btr_haystack import (
    BTRConfig,
    BTRForConditionalGeneration,
    BTRForQuestionAnswering,
    SplitReader,
    default_model_path,
    fit_codes,
)

torch.set_num_threads(1)
hf_logging.disable_progress_bar()

# Characters at which texts are easily cut or lost: marks, joiners, flags, jamo, other scripts, line ends, odd spaces,
# lone surrogates, characters that the tiny vocabularies lack, and what looks like special tokens.
_MARKS_AND_JOINERS = "\u0301\u0308\u200d\u200b\ufe0f\u0600\u093f\u094d\u0915\u0937\u1100\u1161\u11a8\uac00\u0e33\u0e01"
_OTHERS = ["\u4e2d", "\u6587", "\ufb01", "\u2264", "\ud800", "\ufffd", "\u00a0", "\u2028", "\r\n", "\n", "\t", "\f"]
_EMOJI_AND_WORDS = ["\U0001f1eb", "\U0001f469", "\U0001f3fd", "</s>", "[SEP]", "Oslo ", "king", "the "]
ODD_TEXT = st.lists(
    st.sampled_from([*"aeb <>/\\{}", *_MARKS_AND_JOINERS, *_OTHERS, *_EMOJI_AND_WORDS]), max_size=30
).map("".join)
FAMILIES = ("bert", "roberta", "electra", "distilbert", "mpnet", "t5")
SENTENCES = [
    "Oslo is the capital of Norway, and the seat of its king and of its parliament.",
    "The river Limmat leaves Lake Zürich in the middle of the town; it flows past the old mills.",
    "In 1911 Marie Curie was awarded the Nobel Prize in Chemistry for the discovery of radium.",
    "The cheetah is the fastest animal on land: it reaches 104 km/h, but not for long.",
    "Bread is made of flour, water, salt and yeast, and baked in a hot oven for about an hour.",
    "The first printed book in Europe, a Bible, left the workshop of Johannes Gutenberg in Mainz.",
    "Mount Kenya, a dead volcano, is the second highest mountain of Africa after Kilimanjaro.",
    "She wrote forty letters from Cairo; only a dozen reached her brother in Lisbon.",
    "Copper, tin and a little lead were melted together to cast the great bell of the cathedral.",
    "The lighthouse keeper climbed 217 steps every evening to light the lamp by hand.",
]


def passage(number):
    """A short passage; each number gives another one."""
    order = [SENTENCES[(number * k + k) % len(SENTENCES)] for k in (3, 7, 9)]
    return f"Passage {number}. " + " ".join(order[: 1 + number % 3])


def rows_alike(one, other, atol=1e-4):
    """Whether two lists of rows are the same, but for rounding and one row in a hundred, where a bit was near a tie."""
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    near = torch.isclose(one.float(), other.float(), atol=atol, rtol=1e-4).all(1)
    return one.shape == other.shape and int((~near).sum()) <= max(1, len(near) // 100)


@pytest.fixture
def documents():
    return [Document(content=passage(number)) for number in range(8)]


@pytest.fixture
def long_document():
    """More tokens than any window of 384."""
    return Document(content=" ".join(f"{number}: {passage(number)}" for number in range(40)))


def _pair(tokenizer, single, pair):
    """Adds special tokens as the family has them, such as "[CLS] $A [SEP]"."""
    names = {word.split(":")[0] for word in pair.split() if not word.startswith("$")}
    tokens = [(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)


def _words(lower):
    """Every other word of the sentences; the words between are written in pieces."""
    text = " ".join(SENTENCES)
    return sorted(set(re.findall(r"\w+", text.lower() if lower else text)))[::2]


def _letters():
    return sorted(set(string.printable[:94]) | set("".join(SENTENCES)) - {" "})


def _word_pieces(special, single, pair):
    letters = _letters()
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *_words(lower=True)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _pair(tokenizer, single, pair)
    return tokenizer


def _byte_pairs(special, single, pair):
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("i", "n"),
        ("a", "t"),
        ("e", "r"),
        ("o", "n"),
        ("\u0120", "the"),
        ("\u0120", "o"),
    ]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _pair(tokenizer, single, pair)
    return tokenizer


def _unigrams(special, single, pair):
    pieces = [(piece, 0.0) for piece in special] + [("\u2581", -7.0)]
    pieces += [(letter, -8.0) for letter in _letters()]
    pieces += [(f"\u2581{word}", -9.0) for word in _words(lower=False)]
    tokenizer = Tokenizer(models.Unigram(pieces, special.index("<unk>"), False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _pair(tokenizer, single, pair)
    return tokenizer


def make_tokenizer(family):
    """A tokenizer of the family's kind; training one would not give the same each time."""
    inputs = ["input_ids", "attention_mask"]
    match family:
        case "roberta":
            special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
            tokenizer = _byte_pairs(special, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
            names = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
        case "mpnet":
            special = ["<s>", "[UNK]", "</s>", "<pad>", "<mask>"]
            tokenizer = _word_pieces(special, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
            names = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "[UNK]"}
        case "t5":
            tokenizer = _unigrams(["<pad>", "</s>", "<unk>"], "$A </s>", "$A </s> $B </s>")
            names = {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
        case _:
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            tokenizer = _word_pieces(special, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
            names = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]"}
            if family != "distilbert":
                inputs.insert(1, "token_type_ids")
    names = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def _new_reader(family, tokenizer):
    """An ordinary question-answering model with large random weights: its scores lie far apart."""
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.2}
    bert = common | {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    match family:
        case "bert":
            return BertForQuestionAnswering(BertConfig(**bert))
        case "roberta":
            return RobertaForQuestionAnswering(RobertaConfig(**bert, max_position_embeddings=514, type_vocab_size=1))
        case "electra":
            return ElectraForQuestionAnswering(ElectraConfig(**bert, embedding_size=16))
        case "mpnet":
            return MPNetForQuestionAnswering(MPNetConfig(**bert, max_position_embeddings=514))
        case "distilbert":
            sizes = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
            return DistilBertForQuestionAnswering(DistilBertConfig(**common, **sizes, dropout=0.0))
        case _:
            t5 = T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=6,  # attention narrower than the model, as in T5-small
                d_ff=48,
                num_layers=3,
                num_heads=4,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                feed_forward_proj="gated-gelu",
                initializer_factor=1.0,
                dropout_rate=0.0,
            )
            return BTRForQuestionAnswering(BTRConfig(encoder=t5))


@pytest.fixture(scope="session")
def plain_reader(tmp_path_factory):
    """Gives the folder of an ordinary reader of a family; T5 is a BTR model with k = 0."""
    made: dict[str, Path] = {}

    def make(family):
        if family not in made:
            torch.manual_seed(FAMILIES.index(family))
            tokenizer = make_tokenizer(family)
            model = _new_reader(family, tokenizer).eval()
            with torch.no_grad():
                model.qa_outputs.weight.normal_(std=0.5)
            made[family] = tmp_path_factory.mktemp("plain") / family
            model.save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return make


@pytest.fixture(scope="session")
def split_reader(plain_reader, tmp_path_factory):
    """Gives the folder of a BTR reader of a family, its codes fitted."""
    made: dict[tuple, Path] = {}

    def make(family="bert", k=2, bits=16, **settings):
        key = (family, k, bits, *settings.items())
        if key not in made:
            folder = plain_reader(family)
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            settings.setdefault("max_query_length", 24)
            torch.manual_seed(0)
            model = BTRForQuestionAnswering.from_reader(folder, k=k, bits=bits, settings=settings).eval()
            fit_codes(model, tokenizer, [passage(number) for number in range(30)])
            made[key] = tmp_path_factory.mktemp("split") / f"tiny-{family}-k{k}-{bits}bits"
            model.save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def seq2seq(tmp_path_factory):
    """A folder with a tiny T5 of transformers, encoder and decoder."""
    tokenizer = make_tokenizer("t5")
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=4, num_decoder_layers=4, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, dropout_rate=0.0,
        initializer_factor=1.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("seq2seq") / "tiny-seq2seq"
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def generative(seq2seq, tmp_path_factory):
    """The same as a BTR model with codes."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(seq2seq)
    torch.manual_seed(0)
    model = BTRForConditionalGeneration.from_reader(seq2seq, k=2, bits=32, settings={"max_query_length": 48}).eval()
    fit_codes(model, tokenizer, [passage(number) for number in range(30)])
    folder = tmp_path_factory.mktemp("generative") / "tiny-generative"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_SHIPPED: dict[tuple, SplitReader] = {}
shipped = pytest.mark.xdist_group("shipped")  # all tests that load the shipped weights: in one process


@pytest.fixture(scope="session")
def load_shipped_once():
    """The shipped model is loaded once a process by each kind of reader; readers leave their models as they are."""
    load = SplitReader.from_pretrained.__func__

    def once(kind, folder, **settings):
        if str(folder) != str(default_model_path()):
            return load(kind, folder, **settings)
        key = (kind, *sorted((name, str(value)) for name, value in settings.items()))
        if key not in _SHIPPED:
            _SHIPPED[key] = load(kind, folder, **settings)
        return _SHIPPED[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SplitReader, "from_pretrained", classmethod(once))
        yield


@pytest.fixture
def logged_often(monkeypatch):
    """The losses of every fifth step, not of every fiftieth: a training can be short."""
    from btr_haystack.training import stages  # slow to import, and few tests train

    arguments = stages.TrainingArguments
    monkeypatch.setattr(stages, "TrainingArguments", lambda **given: arguments(**given | {"logging_steps": 5}))


@pytest.fixture
def btr(monkeypatch, capsys):
    """Runs `btr` with arguments: gives exit status, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")
    engine = logging.getLogger("btr_haystack")
    level = engine.level

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["btr", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    yield run
    engine.setLevel(level)  # the command changes it


@pytest.fixture
def refused(btr):
    """Runs `btr` with arguments that it cannot accept: gives the one line that it prints."""

    def run(*arguments):
        status, _, errors = btr(*arguments)
        assert status == 1
        line = errors.splitlines()[-1]
        assert line.startswith("btr: ")
        assert [other for other in errors.splitlines() if "btr:" in other or "Traceback" in other] == [line]
        return line

    return run
