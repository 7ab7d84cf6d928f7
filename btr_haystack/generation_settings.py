# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
What may be asked of the writing: one table of transformers' generation settings, each with a ceiling.

Everything else is refused by name. Some of transformers' settings run code of a stranger (`custom_generate`), load a
second model, compile, or take as much memory as is asked for; they come from requests, pipeline files and models alike.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from btr_haystack._transformers import GenerationConfig
from btr_haystack.errors import LimitError
from btr_haystack.limits import Limits

MOST_TOKENS = 1024  # of an answer
MOST_ROWS = 24  # answers to a question, or beams
MOST_STEPS = 2048  # rows times tokens: the logits of each step are kept for the scores, 0.26 GB of a T5's
MOST_ATTENDED = Limits().tokens_attended  # of passages, times rows: each has keys and values of its own, 28 KB a T5's
MOST_TEXTS = 16
LONGEST_TEXT = 64
MOST_SEQUENCES = 1000
LARGEST_ID = (1 << 22) - 1
LARGEST_WEIGHT = 100.0
LONGEST_SHOWN = 60

Rule = tuple[Callable[[Any], bool], str]  # whether a value is good, and what is expected


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and (isinstance(value, int) or math.isfinite(value))


def _whole(least: int, most: int) -> Rule:
    expected = f"{least} or more, a whole number up to {most}"
    return lambda value: _is_number(value, int) and least <= value <= most, expected


def _number(least: float, most: float) -> Rule:
    return lambda value: _is_number(value) and least <= value <= most, f"a number from {least:g} to {most:g}"


def _positive(most: float) -> Rule:
    return lambda value: _is_number(value) and 0 < value <= most, f"a number above 0 and up to {most:g}"


def _ids(most: int) -> Rule:
    def good(value: Any) -> bool:
        return _is_id(value) or (isinstance(value, list) and len(value) <= most and all(map(_is_id, value)))

    return good, f"a token id from 0 to {LARGEST_ID}, or a list of at most {most}"


def _is_id(value: Any) -> bool:
    return _is_number(value, int) and 0 <= value <= LARGEST_ID


def _are_texts(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return (
        isinstance(texts, list)
        and 0 < len(texts) <= MOST_TEXTS
        and all(isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT for text in texts)
    )


def _are_sequences(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_SEQUENCES
        and all(isinstance(ids, list) and 0 < len(ids) <= LONGEST_TEXT and all(map(_is_id, ids)) for ids in value)
    )


_FLAG: Rule = (lambda value: isinstance(value, bool), "True or False")
_SHARE = _number(0, 1)
_ID: Rule = (_is_id, f"a token id from 0 to {LARGEST_ID}")
_SETTINGS: dict[str, Rule] = {
    "max_new_tokens": _whole(1, MOST_TOKENS),
    "max_length": _whole(1, MOST_TOKENS),
    "min_new_tokens": _whole(0, MOST_TOKENS),
    "min_length": _whole(0, MOST_TOKENS),
    "max_time": _positive(3600),
    "num_beams": _whole(1, MOST_ROWS),
    "num_return_sequences": _whole(1, MOST_ROWS),
    "do_sample": _FLAG,
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", "True, False or 'never'"),
    "temperature": _positive(LARGEST_WEIGHT),
    "top_k": _whole(0, LARGEST_ID),
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _SHARE,
    "epsilon_cutoff": _SHARE,
    "eta_cutoff": _SHARE,
    "repetition_penalty": _positive(LARGEST_WEIGHT),
    "length_penalty": _number(-LARGEST_WEIGHT, LARGEST_WEIGHT),
    "no_repeat_ngram_size": _whole(0, LONGEST_TEXT),
    "stop_strings": (_are_texts, f"1 to {MOST_TEXTS} texts, each of 1 to {LONGEST_TEXT} characters"),
    "bad_words_ids": (_are_sequences, f"at most {MOST_SEQUENCES} lists of 1 to {LONGEST_TEXT} token ids"),
    "suppress_tokens": _ids(MOST_SEQUENCES),
    "begin_suppress_tokens": _ids(MOST_SEQUENCES),
    "forced_bos_token_id": _ID,
    "forced_eos_token_id": _ids(MOST_TEXTS),
    "bos_token_id": _ID,
    "pad_token_id": _ID,
    "eos_token_id": _ids(MOST_TEXTS),
    "decoder_start_token_id": _ID,
    "remove_invalid_values": _FLAG,
    "renormalize_logits": _FLAG,
    "use_cache": (lambda value: value is True, "True: without it, every step computes all that went before again"),
    **dict.fromkeys(
        ("output_attentions", "output_hidden_states", "output_scores"),
        (lambda value: value is False, "False: they are not asked for, and large"),
    ),
    "return_dict_in_generate": _FLAG,  # this and the next are set by the reader, whatever they are
    "output_logits": _FLAG,
}
_ARGUMENTS: dict[str, Rule] = {  # of `generate` alone, not of a GenerationConfig
    "prefix_allowed_tokens_fn": (callable, "a function, which can be given in Python alone"),
}
_ORIGIN = frozenset(  # what a GenerationConfig says of where it came from
    {"transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash"}
)


def check_generation(settings: Mapping[str, Any]) -> None:
    """
    Refuse settings that are not in the table, or beyond their ceilings; None counts as not given.

    >>> check_generation({"num_beams": 4, "max_new_tokens": 16, "generation_config": {"do_sample": True}})
    >>> check_generation({"num_beams": 10**6})
    Traceback (most recent call last):
        ...
    ValueError: num_beams is 1000000; expected 1 or more, a whole number up to 24

    :param settings: arguments for transformers' `generate`; `generation_config` is a `GenerationConfig`, or a
        dictionary of its fields.
    :raises TypeError: where `generation_config` is something else.
    :raises ValueError: at the first setting that is refused, naming it; and where they ask for too much together.
    """
    given = dict(settings)
    config = given.pop("generation_config", None)
    fields = fields_of(config)
    for found, table, place in ((given, _SETTINGS | _ARGUMENTS, ""), (fields, _SETTINGS, "generation_config: ")):
        for name, value in found.items():
            _check(name, value, table, place)
    check_together({**fields, **{name: value for name, value in given.items() if value is not None}})


def check_together(settings: Mapping[str, Any]) -> None:
    """
    Refuse settings that ask for too much together.

    :param settings: all that hold, checked one by one.
    :raises ValueError: where beams or answers, times the tokens of an answer, are too many.
    """
    rows = max(settings.get("num_beams") or 1, settings.get("num_return_sequences") or 1)
    tokens = settings.get("max_new_tokens") or settings.get("max_length") or 1
    if rows * tokens > MOST_STEPS:
        msg = (
            f"{rows} beams or answers of up to {tokens} tokens are {rows * tokens} in all; expected at most "
            f"{MOST_STEPS}: ask for fewer, or for shorter ones (max_new_tokens)"
        )
        raise ValueError(msg)


def check_token_ids(settings: Mapping[str, Any], vocabulary: int) -> None:
    """
    Refuse ids of tokens that a model does not have.

    >>> check_token_ids({"forced_bos_token_id": 7}, vocabulary=5)
    Traceback (most recent call last):
        ...
    ValueError: forced_bos_token_id is 7; expected token ids below 5, the size of the model's vocabulary

    :param settings: all that hold, checked one by one.
    :param vocabulary: number of the model's tokens.
    :raises ValueError: at the first setting with such an id.
    """
    for name, value in settings.items():
        if not name.endswith(("_token_id", "suppress_tokens", "bad_words_ids")):
            continue
        lists = [one if isinstance(one, list) else [one] for one in (value if isinstance(value, list) else [value])]
        if any(id_ >= vocabulary for ids in lists for id_ in ids):
            msg = f"{name} is {value!r:.60}; expected token ids below {vocabulary}, the size of the model's vocabulary"
            raise ValueError(msg)


def check_attended(tokens: int, rows: int, most: int = MOST_ATTENDED) -> None:
    """
    Refuse more beams or answers than there is room for beside so many tokens of passages.

    :param tokens: of all passages of a question.
    :param rows: beams or answers.
    :param most: of both together.
    :raises ValueError: where they are too many together.
    """
    if rows * tokens > most:
        msg = (
            f"{rows} beams or answers over {tokens} tokens of passages are {rows * tokens} in all; expected at most "
            f"{most}: ask for fewer, give fewer Documents, or give the component limits with a larger "
            "'tokens_attended'"
        )
        raise LimitError(msg)


def fields_of(config: Any) -> dict[str, Any]:
    """
    The fields of a generation configuration that differ from transformers' defaults.

    >>> fields_of({"num_beams": 2, "max_length": None, "transformers_version": "5.0.0"})
    {'num_beams': 2}

    :param config: a `GenerationConfig`, a dictionary of its fields, or None.
    :raises TypeError: at something else.
    """
    if config is None:
        return {}
    if not isinstance(config, dict | GenerationConfig):
        msg = f"generation_config is {config!r:.60}; expected transformers' GenerationConfig, or a dictionary"
        raise TypeError(msg)
    usual = _usual()
    return {
        name: value
        for name, value in (config if isinstance(config, dict) else vars(config)).items()
        if value is not None and name not in _ORIGIN and not _same(value, usual.get(name))
    }


@cache
def _usual() -> dict[str, Any]:
    return vars(GenerationConfig())


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and isinstance(one, bool | int | float | str) and one == other


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.{LONGEST_SHOWN}}"
    except ValueError:  # Python writes no number of thousands of digits
        return f"a {type(value).__name__} that is too long to show"


def _check(name: Any, value: Any, table: Mapping[str, Rule], place: str) -> None:
    shown = f"{place}{str(name)[:LONGEST_SHOWN]} is {_shown(value)}"
    if name not in table:
        known = ", ".join(sorted(_SETTINGS))
        msg = f"{shown}, which is not a setting of the writing that can be given; expected some of: {known}"
        raise ValueError(msg)
    good, expected = table[name]
    if value is not None and not good(value):
        msg = f"{shown}; expected {expected}"
        raise ValueError(msg)
