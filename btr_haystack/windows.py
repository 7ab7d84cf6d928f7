# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Text into token windows, and tokens back into characters."""

from dataclasses import dataclass
from typing import Any

from btr_haystack.errors import ModelError, panicked, told_as_damage

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
_NO_LETTER = "\ue000"  # for private use: no vocabulary has it


@dataclass(frozen=True, slots=True)
class Frame:
    """
    The special tokens around a pair: `opening` question `middle` passage `closing`.

    The question part is opening + question + middle, the passage part passage + closing.
    """

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    closing: tuple[int, ...]

    @property
    def around_question(self) -> int:
        """Number of special tokens in the question part."""
        return len(self.opening) + len(self.middle)


def frame_of(tokenizer: Any) -> Frame:
    """
    Find a tokenizer's special tokens by encoding a pair.

    :param tokenizer: a fast transformers tokenizer.
    :returns: what stands before, between and behind.
    :raises ModelError: for a slow tokenizer (no character offsets), or one that cannot encode pairs.
    """
    if not getattr(tokenizer, "is_fast", False):
        msg = f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer (tokenizer.json) is needed"
        raise ModelError(msg)
    with told_as_damage("the tokenizer does not encode a pair of question and passage"):
        encoding = tokenizer("a", "b")
    ids, parts = encoding["input_ids"], encoding.sequence_ids(0)
    if 0 not in parts or 1 not in parts:
        msg = "the tokenizer does not encode a pair of question and passage"
        raise ModelError(msg)
    first, second = [i for i, part in enumerate(parts) if part == 0], [i for i, part in enumerate(parts) if part == 1]
    return Frame(tuple(ids[: first[0]]), tuple(ids[first[-1] + 1 : second[0]]), tuple(ids[second[-1] + 1 :]))


def clean(text: str) -> str:
    """
    Lone surrogates replaced, one character by one, so that any Python string can be tokenised and offsets stay.

    >>> clean("a\\ud800b") == "a\\ufffdb"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.translate(_SURROGATES)
    return text


def encodings(tokenizer: Any, texts: list[str]) -> list[Any]:
    """
    Tokens of each text, without special tokens and without truncation.

    What looks like a special token ("</s>", "[SEP]") is text like any other. Where a vocabulary has it as a piece, its
    first character is read as an unknown one.

    :param tokenizer: a fast transformers tokenizer.
    :param texts: any strings.
    :returns: for each text an `Encoding` of the package tokenizers, with `ids` and `offsets`; empty for an empty text.
    :raises ModelError: where the tokenizer is damaged, and fails or panics.
    """
    texts = [clean(text) for text in texts]
    found = _encoded(tokenizer, texts)
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    while wrong := [i for i, encoding in enumerate(found) if not control.isdisjoint(encoding.ids)]:
        for i in wrong:
            places = [a for id_, (a, _) in zip(found[i].ids, found[i].offsets, strict=True) if id_ in control]
            letters = list(texts[i])
            for place in places:
                letters[place] = _NO_LETTER
            changed = "".join(letters)
            if changed == texts[i]:
                msg = f"the tokenizer reads {texts[i][places[0] :]!r:.40} as a special token, whatever stands there"
                raise ModelError(msg)
            texts[i] = changed
        for i, encoding in zip(wrong, _encoded(tokenizer, [texts[i] for i in wrong]), strict=True):
            found[i] = encoding
    return found


def _encoded(tokenizer: Any, texts: list[str]) -> list[Any]:
    if not texts:
        return []
    try:
        found: list[Any] = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        ).encodings
    except BaseException as error:
        if not panicked(error) and type(error) is not Exception:  # which is what tokenizers raises
            raise
        msg = f"the model's tokenizer failed: {str(error).strip():.400}. Save it anew, or take another model"
        raise ModelError(msg) from error
    return found


def tokenise(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """
    Token ids of each text, without special tokens and without truncation.

    :param tokenizer: a fast transformers tokenizer.
    :param texts: any strings.
    :returns: for each text its ids; none for an empty one.
    """
    return [encoding.ids for encoding in encodings(tokenizer, texts)]


def question_part(frame: Frame, ids: list[int], longest: int) -> list[int]:
    """
    The question with its special tokens, cut at the end where it is too long.

    :param frame: of the tokenizer.
    :param ids: token ids of the question.
    :param longest: most tokens of the whole part.
    :returns: token ids of the part.

    >>> question_part(Frame((101,), (102,), (102,)), [5, 6, 7], longest=4)
    [101, 5, 6, 102]
    """
    return [*frame.opening, *ids[: max(0, longest - frame.around_question)], *frame.middle]


def passage_room(frame: Frame, tokens: int, max_query_length: int) -> int:
    """
    Count the passage tokens that fit beside the longest question part; 0 or less where there is no room.

    :param frame: of the tokenizer.
    :param tokens: of question and passage together.
    :param max_query_length: most tokens of the question part.
    :returns: number of tokens of a document.

    >>> passage_room(Frame((101,), (102,), (102,)), tokens=384, max_query_length=64)
    319
    """
    return tokens - max_query_length - len(frame.closing)


def window_count(length: int, window: int, stride: int) -> int:
    """
    Count the windows of `window_starts` without making them.

    >>> window_count(10, window=4, stride=1)
    3

    :param length: tokens of the document.
    :param window: tokens a window holds.
    :param stride: tokens that neighbours share, less than `window`.
    """
    return -(-max(length - window, 0) // (window - stride)) + 1 if length else 0


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """
    Where windows begin; the last one reaches the end, neighbours share `stride` tokens.

    :param length: tokens of the document; an empty one has no window.
    :param window: tokens a window holds.
    :param stride: tokens that neighbours share, less than `window`.
    :returns: first token of each window.

    >>> window_starts(10, window=4, stride=1)
    [0, 3, 6]
    """
    if length == 0:
        return []
    step = window - stride
    return list(range(0, max(length - window, 0) + step, step)) if length > window else [0]
