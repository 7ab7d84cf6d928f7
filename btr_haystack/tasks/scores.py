# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The scores of the paper's tasks, which are one number for each answer: 1.0 if it is right, else 0.0."""

import re

from btr_haystack.metrics import normalise
from btr_haystack.tasks.questions import CHOICES, LABELS, Item

_SUPPORTS, _REFUTES, _NOT_ENOUGH = LABELS
_SPOKEN = {
    **dict.fromkeys(["supports", "supported", "support", "true", "yes"], _SUPPORTS),
    **dict.fromkeys(["refutes", "refuted", "refute", "false", "no"], _REFUTES),
    **dict.fromkeys(["not enough info", "not enough information", "maybe"], _NOT_ENOUGH),
}
_BARE_LETTER = re.compile(rf"[\W_]*([{CHOICES}])[\W_]*", re.IGNORECASE)
_LETTER = re.compile(rf"(?<![\w'\u2019-])[{CHOICES}](?![\w'\u2019-])")


def open_exact_match(prediction: str, item: Item, language: str | None = None) -> float:
    """
    Tell whether an answer equals an accepted one, both normalised, as DPR and FiD evaluate open-domain questions.

    This differs from SQuAD's exact match where normalising leaves nothing of an accepted answer, as of "A": SQuAD 2.0
    does not accept it, DPR and FiD do. Whatever is said to a question without any accepted answer counts as wrong.

    >>> open_exact_match("the Legislative branch.", Item("1", "who makes laws", ("legislative branch", "legislative")))
    1.0
    >>> open_exact_match("", Item("1", "who makes laws", ()))
    0.0

    :param prediction: The predicted answer.
    :param item: The question and its accepted answers.
    :param language: As for `btr_haystack.metrics.normalise`.
    :returns: 1.0 or 0.0.
    :raises ValueError: For a language that is not known.
    """
    return float(normalise(prediction, language) in (normalise(one, language) for one in item.answers))


def label_accuracy(prediction: str, item: Item) -> float:
    """
    Tell whether an answer to a claim of FEVER means its label.

    The whole answer must be a label or a word for it, whatever its case and punctuation: "not supported" is neither.

    >>> claim = Item("1", "Aruba is the only ABC Island.", ("REFUTES",))
    >>> [label_accuracy(answer, claim) for answer in ("refuted.", "False", "No", "SUPPORTS", "not supported")]
    [1.0, 1.0, 1.0, 0.0, 0.0]

    :param prediction: What the model says.
    :param item: The claim and its label.
    :returns: 1.0 or 0.0.
    """
    return float(_SPOKEN.get(normalise(prediction)) in item.answers)


def choice_accuracy(prediction: str, item: Item) -> float:
    """
    Tell whether an answer to a question of MMLU names the right choice.

    A letter alone names its choice, else the full text of a choice does, else the first capital A to D standing alone.

    >>> asked = Item("anatomy/1", "What dissolves in fat?", ("C",), (), ("Vitamin B", "Vitamin C", "Vitamin A", "all"))
    >>> [choice_accuracy(answer, asked) for answer in ("(c)", "vitamin a", "It is C.", "Vitamin C", "retinol")]
    [1.0, 1.0, 1.0, 0.0, 0.0]

    :param prediction: What the model says.
    :param item: The question, its choices and the letter of the right one.
    :returns: 1.0 or 0.0.
    """
    if bare := _BARE_LETTER.fullmatch(prediction):
        return float(bare[1].upper() in item.answers)
    said = _plain(prediction)
    named = {letter for letter, choice in zip(CHOICES, item.choices, strict=False) if _plain(choice) == said}
    if not named and (alone := _LETTER.search(prediction)):
        named = {alone[0]}
    return float(not named.isdisjoint(item.answers))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")  # "-1" and "1" are different choices: other marks must stay
