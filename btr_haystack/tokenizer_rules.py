# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Which tokenizers are read: those made of the parts that the tokenizers of the families here are made of.

A tokenizer.json is a program. A pattern in it can backtrack without end, a replacement, a template or a table can turn
one character into any number of tokens. So parts and patterns are those of a list, and texts in them are short.
"""

import base64
import binascii
import math
from collections.abc import Callable, Iterator
from typing import Any

from btr_haystack.errors import ModelError

LONGEST_PIECE = 256  # characters; RoBERTa's longest has 128
LONGEST_AFFIX = 8  # such as "##" and "</w>"
LONGEST_WORD = 200  # characters that WordPiece looks at, in time that grows with their square; 100 in all we know
LONGEST_EXPANSION = 64  # bytes that one character becomes; 33 in the tables of SentencePiece
MOST_PIECES = 2_000_000
MOST_ADDED = 5_000
MOST_PARTS = 8  # of a sequence of normalisers, ..., and of a template
LARGEST_ID = (1 << 22) - 1
LARGEST_ADDED = (1 << 20) - 1  # transformers makes up tokens for the ids below it that are missing
LONGEST_FIXED = 65_536  # tokens to which a tokenizer pads, if it is asked to
PIECE = "\u2581"  # SentencePiece's mark of a space
REPLACED = {
    ("Regex", " {2,}"): (" ", PIECE),
    ("String", " "): (PIECE,),
    ("String", PIECE): (" ",),
    ("String", "``"): ('"',),
    ("String", "''"): ('"',),
    ("String", "\n"): (" ",),
    ("String", "\r"): (" ",),
    ("String", "\t"): (" ",),
}
CONFIG_CLASSES = frozenset(
    {
        "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer", "RobertaTokenizer",
        "XLMRobertaTokenizer", "CamembertTokenizer", "HerbertTokenizer", "BartTokenizer", "GPT2Tokenizer",
        "T5Tokenizer", "PreTrainedTokenizer", "TokenizersBackend",
    }
)  # fmt: skip
CONFIG_REFUSED = ("auto_map", "fast_tokenizer_files", "init_inputs", "tokenizer_object", "gguf_file", "vocab", "merges")
MOST_EXTRA_IDS = 1000

Check = Callable[[Any], bool]


class _UnknownPartError(ValueError):
    """Something that is not on the list; its text says what, and where."""


def check_tokenizer(rules: Any, name: str) -> None:
    """
    Refuse a tokenizer of other parts than those that the families here have.

    :param rules: what tokenizer.json says, or `Tokenizer.to_str`.
    :param name: of the model or its file, for the message.
    :raises ModelError: naming the part, and what it says.
    """
    try:
        _object(rules, "the whole")
        for part, known in PARTS.items():
            _check_part(rules.get(part), known, part)
        _check_vocabulary(_object(rules.get("model"), "model"))
        _check_added(rules.get("added_tokens") or [])
        _check_padding(rules.get("padding"))
    except _UnknownPartError as error:
        msg = (
            f"{name}: {error}; expected the parts that tokenizers of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, "
            "XLM-RoBERTa, CamemBERT and T5 have"
        )
        raise ModelError(msg) from error


def check_tokenizer_config(settings: Any, name: str) -> None:
    """
    Refuse a tokenizer_config.json that asks for code or files of its own, or for very much.

    :param settings: what the file says.
    :param name: of the file, for the message.
    :raises ModelError: naming the key, and what it says.
    """
    if not isinstance(settings, dict):
        msg = f"{name}: expected an object, found {settings!r:.60}"
        raise ModelError(msg)
    asked = [key for key in CONFIG_REFUSED if settings.get(key)]
    files = ("special_tokens_map_file", "tokenizer_file")  # which old ones name, and nothing opens
    asked += [key for key, value in settings.items() if key.endswith("_file") and value and key not in files]
    kind = settings.get("tokenizer_class")
    if kind is not None and str(kind).removesuffix("Fast") not in CONFIG_CLASSES:
        asked.append("tokenizer_class")
    extra = settings.get("extra_ids")
    if extra is not None and not (_is_whole(extra) and extra <= MOST_EXTRA_IDS):
        asked.append("extra_ids")
    added = settings.get("added_tokens_decoder") or {}
    if not isinstance(added, dict) or len(added) > MOST_ADDED or not all(_is_added_id(number) for number in added):
        asked.append("added_tokens_decoder")
    for key in ("additional_special_tokens", "extra_special_tokens"):
        tokens = settings.get(key) or []
        if not isinstance(tokens, list | dict) or len(tokens) > MOST_ADDED:
            asked.append(key)
    if asked:
        msg = (
            f"{name}: {asked[0]} is {settings[asked[0]]!r:.60}, which is not read here: no code or file of the model's "
            "own, a class of the families here, few added tokens. Save the tokenizer anew without it"
        )
        raise ModelError(msg)


def check_added_tokens(tokens: Any, name: str) -> None:
    """
    Refuse an added_tokens.json with very many tokens, or numbers up to which others would be made.

    :param tokens: what the file says.
    :param name: of the file, for the message.
    :raises ModelError: telling what it says.
    """
    few = isinstance(tokens, dict) and len(tokens) <= MOST_ADDED
    if not few or not all(_is_whole(number) and number <= LARGEST_ADDED for number in tokens.values()):
        msg = f"{name}: expected at most {MOST_ADDED} tokens with ids up to {LARGEST_ADDED}, found {tokens!r:.60}"
        raise ModelError(msg)


def _is_added_id(number: Any) -> bool:
    digits = isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= LONGEST_AFFIX
    return digits and int(number) <= LARGEST_ADDED


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _short(most: int) -> Check:
    return lambda value: value is None or (isinstance(value, str) and len(value) <= most)


def _one_of(*values: Any) -> Check:
    return lambda value: any(value is one or (isinstance(value, str) and value == one) for one in values)


def _is_special(value: Any) -> bool:
    """A pair of a special token and its id."""
    return isinstance(value, list) and len(value) == 2 and _short(LONGEST_PIECE)(value[0]) and _is_whole(value[1])  # noqa: PLR2004


def _is_template(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_PARTS


def _are_special_tokens(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MOST_PARTS
        and all(
            isinstance(token, dict)
            and all(isinstance(token.get(key), list) and len(token[key]) == 1 for key in ("ids", "tokens"))
            and _is_whole(token["ids"][0])
            for token in value.values()
        )
    )


def _is_charsmap(value: Any) -> bool:
    """A table of SentencePiece: 4 bytes for the size of a trie, the trie, and what it leads to, each closed by a 0."""
    if value is None:
        return True
    try:
        table = base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return False
    expansions = table[4 + int.from_bytes(table[:4], "little") :]
    return max(map(len, expansions.split(b"\0"))) <= LONGEST_EXPANSION


def _is_replaced(pattern: Any) -> bool:
    return isinstance(pattern, dict) and len(pattern) == 1 and _replaced(pattern) in REPLACED


def _replaced(pattern: dict[str, Any]) -> tuple[str, Any]:
    [(kind, text)] = pattern.items()
    return (kind, text) if isinstance(text, str) else (kind, None)


_METASPACE: dict[str, Check] = {
    "replacement": _one_of(PIECE),
    "str_rep": _one_of(None, PIECE),
    "prepend_scheme": _one_of("always", "never", "first"),
    "add_prefix_space": _is_flag,
    "split": _is_flag,
}
_BYTE_LEVEL: dict[str, Check] = dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), _is_flag)
_REPLACE: dict[str, Check] = {"pattern": _is_replaced, "content": _short(1)}
_SPECIALS: dict[str, Check] = {"sep": _is_special, "cls": _is_special}
_BEHAVIOURS = _one_of("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
PARTS: dict[str, dict[str, dict[str, Check]]] = {
    "normalizer": {
        "BertNormalizer": dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), _is_flag),
        "Precompiled": {"precompiled_charsmap": _is_charsmap},
        "Strip": {"strip_left": _is_flag, "strip_right": _is_flag},
        "Prepend": {"prepend": _one_of(PIECE)},
        "Replace": _REPLACE,
        **{name: {} for name in ("Lowercase", "StripAccents", "Nmt", "NFC", "NFD", "NFKC", "NFKD")},
    },
    "pre_tokenizer": {
        "BertPreTokenizer": {},
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": _METASPACE,
        "WhitespaceSplit": {},
        "Whitespace": {},
        "Punctuation": {"behavior": _BEHAVIOURS},
        "Digits": {"individual_digits": _is_flag},
    },
    "post_processor": {
        "BertProcessing": _SPECIALS,
        "RobertaProcessing": {**_SPECIALS, "trim_offsets": _is_flag, "add_prefix_space": _is_flag},
        "ByteLevel": _BYTE_LEVEL,
        "TemplateProcessing": {"single": _is_template, "pair": _is_template, "special_tokens": _are_special_tokens},
    },
    "decoder": {
        "WordPiece": {"prefix": _short(LONGEST_AFFIX), "cleanup": _is_flag},
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": _METASPACE,
        "BPEDecoder": {"suffix": _short(LONGEST_AFFIX)},
        "Replace": _REPLACE,
        "ByteFallback": {},
        "Fuse": {},
        "Strip": {"content": _one_of(" "), "start": _is_whole, "stop": _is_whole},
    },
}
INSIDE = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
MODELS: dict[str, dict[str, Check]] = {
    "WordPiece": {
        "unk_token": _short(LONGEST_PIECE),
        "continuing_subword_prefix": _short(LONGEST_AFFIX),
        "max_input_chars_per_word": lambda value: _is_whole(value) and value <= LONGEST_WORD,
    },
    "BPE": {
        "dropout": lambda value: value is None or value == 0,
        "unk_token": _short(LONGEST_PIECE),
        "continuing_subword_prefix": _short(LONGEST_AFFIX),
        "end_of_word_suffix": _short(LONGEST_AFFIX),
        "fuse_unk": _is_flag,
        "byte_fallback": _is_flag,
        "ignore_merges": _is_flag,
        "merges": lambda value: isinstance(value, list) and len(value) <= MOST_PIECES,
    },
    "Unigram": {"unk_id": lambda value: value is None or _is_whole(value), "byte_fallback": _is_flag},
}


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"{place} is {value!r:.60}, not an object"
        raise _UnknownPartError(msg)
    return value


def _check_part(part: Any, known: dict[str, dict[str, Check]], place: str, depth: int = 0) -> None:
    """A part, or a sequence of them."""
    if part is None:
        return
    kind = _object(part, place).get("type")
    inside = part.get(INSIDE.get(place, "decoders"))
    if kind == "Sequence" and isinstance(inside, list) and len(inside) <= MOST_PARTS and depth < 2:  # noqa: PLR2004
        for one in inside:
            _check_part(_object(one, place), known, place, depth + 1)
    elif not isinstance(kind, str) or kind not in known:
        msg = f"its {place} is a {kind!r:.60}"
        raise _UnknownPartError(msg)
    else:
        _check_fields(part, known[kind], f"{place} {kind}")
        if kind == "Replace" and part.get("content") not in REPLACED[_replaced(part["pattern"])]:
            msg = f"its {place} replaces {part['pattern']!r:.60} by {part.get('content')!r:.60}"
            raise _UnknownPartError(msg)


def _check_fields(part: dict[str, Any], fields: dict[str, Check], place: str) -> None:
    for name, value in part.items():
        if name not in ("type", "vocab") and not (name in fields and fields[name](value)):
            msg = f"{name} of its {place} is {value!r:.60}"
            raise _UnknownPartError(msg)


def _check_vocabulary(model: dict[str, Any]) -> None:
    vocabulary = model.get("vocab")
    kind = model.get("type") or ("Unigram" if isinstance(vocabulary, list) else "BPE" if "merges" in model else None)
    kind = "WordPiece" if kind is None else kind  # old files do not say
    if not isinstance(kind, str) or kind not in MODELS:
        msg = f"its model is a {kind!r:.60}"
        raise _UnknownPartError(msg)
    _check_fields(model, MODELS[kind], f"model {kind}")
    if not isinstance(vocabulary, list if kind == "Unigram" else dict) or not 0 < len(vocabulary) <= MOST_PIECES:
        msg = f"its vocabulary is {vocabulary!r:.60}"
        raise _UnknownPartError(msg)
    bad = _bad_scored(vocabulary) if kind == "Unigram" else _bad_numbered(vocabulary)
    if (piece := next(bad, None)) is not None:
        msg = f"its vocabulary has {piece!r:.60}"
        raise _UnknownPartError(msg)
    unknown = model.get("unk_token") if kind == "WordPiece" else None
    if unknown is not None and unknown not in vocabulary:
        msg = f"its vocabulary lacks its unk_token, {unknown!r:.60}"
        raise _UnknownPartError(msg)
    if kind == "Unigram" and (model.get("unk_id") or 0) >= len(vocabulary):
        msg = f"its unk_id is {model['unk_id']} but its vocabulary has {len(vocabulary)} pieces"
        raise _UnknownPartError(msg)


def _bad_scored(vocabulary: Any) -> Iterator[Any]:
    for entry in vocabulary:
        good = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)  # noqa: PLR2004
        if not (good and 0 < len(entry[0]) <= LONGEST_PIECE and _is_score(entry[1])):
            yield entry


def _is_score(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _bad_numbered(vocabulary: Any) -> Iterator[Any]:
    for piece, number in vocabulary.items():
        if not (len(piece) <= LONGEST_PIECE and _is_whole(number)):
            yield piece, number


def _check_added(added: Any) -> None:
    if not isinstance(added, list) or len(added) > MOST_ADDED:
        msg = f"its added_tokens are {added!r:.60}, not a list of at most {MOST_ADDED}"
        raise _UnknownPartError(msg)
    for token in added:
        content = _object(token, "an added token").get("content")
        short = isinstance(content, str) and 0 < len(content) <= LONGEST_PIECE
        if not short or not _is_whole(token.get("id")) or token.get("single_word"):
            msg = f"it has the added token {token!r:.200}"
            raise _UnknownPartError(msg)


def _check_padding(padding: Any) -> None:
    strategy = _object(padding, "padding").get("strategy") if padding is not None else None
    if strategy in (None, "BatchLongest"):
        return
    fixed = strategy.get("Fixed") if isinstance(strategy, dict) else None
    if not isinstance(fixed, int) or not 0 <= fixed <= LONGEST_FIXED:
        msg = f"it pads to {strategy!r:.60}"
        raise _UnknownPartError(msg)
