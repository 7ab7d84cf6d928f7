# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Questions for passages that nobody has asked about: one model writes them, a reader answers them.

A split reader that meets the same questions again and again learns them by heart. Questions that are made for any text
(Alberti et al., 2019, "Synthetic QA corpora generation with roundtrip consistency") are always new ones.
"""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from btr_haystack.citation import UNKNOWN, surface_of_ids
from btr_haystack.generative import BTRForConditionalGeneration
from btr_haystack.model import BTRForQuestionAnswering
from btr_haystack.padding import padded
from btr_haystack.rows import by_length
from btr_haystack.spans import best_spans
from btr_haystack.squad import Paragraph, Question
from btr_haystack.training.data import Group, Pair, collate
from btr_haystack.training.losses import LOW
from btr_haystack.training.trainer import Places, places_of
from btr_haystack.windows import encodings, frame_of, question_part, tokenise

ASK = "Which question does this passage answer?"
LONGEST_QUESTION = 28  # tokens; a batch takes as long as its longest, and few of those are good
LONGEST_ANSWER = 30
LIKELIEST = 8  # tokens that each place is sampled from: with more, questions are seldom to the point

logger = logging.getLogger(__name__)


def asking(paragraphs: Iterable[Paragraph]) -> list[Paragraph]:
    """
    Questions turned round, to train an asker: each becomes what is to be written of its paragraph.

    >>> paragraph = Paragraph("Oslo", "Oslo is a town.", (Question("1", "What is Oslo?", (("a town", 8),)),))
    >>> asking([paragraph])[0].questions[0].label
    'What is Oslo?'

    :param paragraphs: with questions; those without an answer are left out, with one warning.
    """
    paragraphs = list(paragraphs)
    unanswered = sum(not question.answers for paragraph in paragraphs for question in paragraph.questions)
    if unanswered:
        logger.warning("left out %d questions without an answer: an asker learns from the others", unanswered)
    return [
        dataclasses.replace(
            paragraph,
            questions=tuple(
                dataclasses.replace(question, text=ASK, label=question.text)
                for question in paragraph.questions
                if question.answers
            ),
        )
        for paragraph in paragraphs
    ]


@torch.inference_mode()
def write_questions(
    asker: BTRForConditionalGeneration, tokenizer: Any, texts: Sequence[str], *, each: int, window: int = 256
) -> list[list[str]]:
    """
    Sample questions of passages.

    :param asker: a joint reader (k = 0) of the stage "asker".
    :param tokenizer: its own.
    :param texts: passages, all run at once.
    :param each: questions sampled of a passage.
    :param window: tokens of a passage that are read, its first ones.
    :returns: for each passage its questions, different ones, without empty ones and those that found no end.
    """
    if not texts:
        return []
    frame, pad = frame_of(tokenizer), tokenizer.pad_token_id or 0
    asked = question_part(frame, tokenise(tokenizer, [ASK])[0], asker.config.max_query_length)
    rows = [[*asked, *ids[:window], *frame.closing] for ids in tokenise(tokenizer, list(texts))]
    ids, mask = (one.to(asker.device) for one in padded(rows, pad))
    t5: Any = asker.encoder
    written = t5.generate(
        ids, attention_mask=mask, do_sample=True, top_k=LIKELIEST, num_return_sequences=each,
        max_new_tokens=LONGEST_QUESTION,
    )  # fmt: skip
    ends = torch.as_tensor(t5.generation_config.eos_token_id, device=written.device)
    whole = torch.isin(written, ends).any(1).tolist()
    decoded = [surface_of_ids(tokenizer, ids) for ids in written.tolist()]
    questions = [
        text if ended and UNKNOWN not in text else "" for text, ended in zip(decoded, whole, strict=True)
    ]  # fmt: skip
    return [list(dict.fromkeys(filter(None, questions[i * each : (i + 1) * each]))) for i in range(len(texts))]


@torch.inference_mode()
def answer_questions(
    teacher: BTRForQuestionAnswering,
    tokenizer: Any,
    paragraphs: Sequence[Paragraph],
    *,
    least: float,
    window: int = 256,
) -> list[Paragraph]:
    """
    Give questions the answers that a reader finds, and drop those of which it is not sure.

    :param teacher: a joint reader (k = 0).
    :param tokenizer: its own.
    :param paragraphs: with questions whose answers are not looked at.
    :param least: probability that an answer must have, the null place being one of the choices; from 0 to 1.
    :param window: tokens of a paragraph that are read, its first ones.
    :returns: the paragraphs that have a question left.
    """
    frame, pad = frame_of(tokenizer), tokenizer.pad_token_id or 0
    tokens = encodings(tokenizer, [paragraph.text for paragraph in paragraphs])
    asked = [
        (number, question) for number, paragraph in enumerate(paragraphs) for question in paragraph.questions
        if tokens[number].ids
    ]  # fmt: skip
    if not asked:
        return []
    longest = teacher.config.max_query_length
    parts = tokenise(tokenizer, [question.text for _, question in asked])
    pairs = [
        Pair(question_part(frame, part, longest), number, -1, -1, group, [])
        for group, (part, (number, _)) in enumerate(zip(parts, asked, strict=True))
    ]
    batch = collate([Group([[*found.ids[:window], *frame.closing] for found in tokens], pairs)], pad)
    batch = {name: value.to(teacher.device) for name, value in batch.items()}
    places = places_of(batch, frame, null_first=teacher.family.null_first, pad=pad)
    found = by_length(places.mask.sum(1), lambda numbers: _best(teacher, places.rows(numbers)))
    sure, first, last = (one[:, 0].tolist() for one in found)
    before = batch["question_mask"].sum(1).tolist()  # of the passage: tokens of the question, whose number is the row's
    answered: dict[int, list[Question]] = {}
    for row, (number, question) in enumerate(asked):
        offsets, text = tokens[number].offsets, paragraphs[number].text
        start = offsets[first[row] - before[row]][0]
        answer = text[start : offsets[last[row] - before[row]][1]]
        if sure[row] >= least and answer.strip():
            start += len(answer) - len(answer.lstrip())
            answers = ((answer.strip(), start),)
            answered.setdefault(number, []).append(dataclasses.replace(question, answers=answers))
    return [
        dataclasses.replace(paragraphs[number], questions=tuple(questions)) for number, questions in answered.items()
    ]


def _best(teacher: BTRForQuestionAnswering, places: Places) -> list[Tensor]:
    """Probability, first and last token of each row's best span, each (rows, 1)."""
    out = teacher(input_ids=places.ids, attention_mask=places.mask, token_type_ids=places.segments)
    logits = [one.float().masked_fill(~places.allowed, LOW) for one in (out.start_logits, out.end_logits)]
    start, end = (one.log_softmax(1) for one in logits)
    scores, first, last = best_spans(start, end, places.inside, 1, LONGEST_ANSWER)
    return [scores.exp(), first, last]
