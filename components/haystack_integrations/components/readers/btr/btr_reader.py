# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The extractive reader that reads passages from bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document, ExtractedAnswer, component, logging
from haystack.utils import ComponentDevice, Secret

from btr_haystack.errors import ModelError
from btr_haystack.limits import Limits
from btr_haystack.reader import Spans, SplitReader
from haystack_integrations.components.readers.btr._answers import (
    AnswerRules,
    best_documents,
    candidates,
    choose,
    distinct,
    rank_prior,
    weighted_scores,
)
from haystack_integrations.components.readers.btr._checks import (
    check_at_least,
    check_documents,
    check_flag,
    check_kept_share,
    check_queries,
    check_windows,
    first_given,
)
from haystack_integrations.components.readers.btr._model import HUB_TOKEN, load_reader, settings_to_dict
from haystack_integrations.components.readers.btr._reading import Reading, StoreReader, check_request, with_text
from haystack_integrations.components.readers.btr.binary_token_store import BinaryTokenStore

logger = logging.getLogger(__name__)

AS_CONSTRUCTED = -1.0  # a run's overlap_threshold where none is given: None has a meaning of its own
ANSWERS_PER_SEQ = 20
OF_ONE_MODEL = ("revision", "subfolder")  # arguments that say where in its repository a model is


@dataclass(frozen=True, slots=True)
class _Settings:
    """What one run goes by: its own arguments, else those of the constructor."""

    max_seq_length: int
    stride: int
    max_batch_size: int | None
    answers_per_seq: int
    max_answer_length: int | None
    kept_share: float | None
    retrieval_weight: float
    second_read: int
    rules: AnswerRules


@component
class BTRReader(StoreReader[SplitReader]):
    """
    Locates and extracts answers to a given query from Documents, reading them from bits.

    It takes the place of `TransformersExtractiveReader`: same parameters, same outputs. The lower layers
    of its model have seen the documents beforehand and left a few bits a token in a `BinaryTokenStore`; at question
    time only the upper layers run. A document that the store lacks is encoded on the spot, and written back if the
    store can be written.

    Any question-answering checkpoint of BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT or MPNet works as
    well. It is then read as always, and nothing is kept.

    ```python
    from haystack import Document

    from haystack_integrations.components.readers.btr import BTRReader

    docs = [
        Document(content="Python is a popular programming language"),
        Document(content="python ist eine beliebte Programmiersprache"),
    ]

    reader = BTRReader()

    question = "What is a popular programming language?"
    result = reader.run(query=question, documents=docs)
    assert "Python" in result["answers"][0].data
    ```
    """

    _kind = SplitReader

    def __init__(
        self,
        model: Path | str | None = None,
        device: ComponentDevice | None = None,
        token: Secret | None = HUB_TOKEN,
        top_k: int = 20,
        score_threshold: float | None = None,
        max_seq_length: int = 384,
        stride: int = 128,
        max_batch_size: int | None = None,
        answers_per_seq: int | None = None,
        no_answer: bool = True,
        calibration_factor: float = 0.1,
        overlap_threshold: float | None = 0.01,
        model_kwargs: dict[str, Any] | None = None,
        *,
        token_store: BinaryTokenStore | None = None,
        max_answer_length: int | None = None,
        progress_bar: bool = False,
        kept_share: float | None = None,
        retrieval_weight: float = 0.0,
        second_model: Path | str | None = None,
        second_read: int = 2,
        int8: bool = False,
        limits: Limits | dict[str, int] | None = None,
    ) -> None:
        """
        Set up the reader; nothing is loaded before it is used.

        :param model:
            A BTR model or a question-answering model of the BERT family: a path to a folder containing the model files
            or an identifier for the Hugging Face hub. If `None`, the model of the token store; without one, the model
            that comes with btr-haystack.
        :param device:
            The device on which the model is loaded. If `None`, that of the token store, or the default device.
        :param token:
            The API token used to download private models from Hugging Face; unless another is given, the token store's.
        :param top_k:
            Number of answers to return per query. It is required even if score_threshold is set.
            An additional answer with no text is returned if no_answer is set to True (default).
        :param score_threshold:
            Returns only answers with a probability score of at least this threshold.
        :param max_seq_length:
            Maximum number of tokens of question and passage together. If a document exceeds it, it is split. With T5, a
            question of more than 64 tokens makes its rows so much longer.
        :param stride:
            Number of tokens that overlap when a document is split because it exceeds max_seq_length.
        :param max_batch_size:
            Maximum number of windows that are fed through the model at the same time. If `None`, as many as fit.
        :param answers_per_seq:
            Number of answer candidates to consider per window, 20 if `None`.
        :param no_answer:
            Whether to return an additional `no answer` with an empty text and a score representing the
            probability that the other top_k answers are incorrect.
        :param calibration_factor:
            Factor used for calibrating probabilities.
        :param overlap_threshold:
            If set this will remove duplicate answers if they have an overlap larger than the
            supplied threshold. For example, for the answers "in the river in Maine" and "the river" we would remove
            one of these answers since the second answer has a 100% (1.0) overlap with the first answer.
            However, for the answers "the river in" and "in Maine" there is only a max overlap percentage of 25% so
            both of these answers could be kept if this variable is set to 0.25 or higher.
            If None is provided then all answers are kept.
        :param model_kwargs:
            Additional keyword arguments passed to the model's `from_pretrained`: `dtype`, `device_map`, `revision`,
            `subfolder`, `attn_implementation` ("eager" or "sdpa"), `local_files_only`. If `None`, those of the token
            store.
        :param token_store:
            Where the documents' bits are. Its `max_seq_length` and `stride` must be the reader's. Without a store, the
            reader keeps the bits of the documents that it has encoded last in memory, up to 256 MB of them.
        :param max_answer_length:
            Most tokens of an answer; `None` for no limit.
        :param progress_bar:
            Whether to show a progress bar while documents are encoded that the store lacks.
        :param kept_share:
            Share of the windows that are read to the end, above 0 and up to 1: those that look best after the first
            upper layer, by the reader's own judgement and by the order of the Documents' scores. Less is faster and
            loses answers. `None` for the model's own share (`kept_share` in its config.json): 0.3 for the default
            one, which of three Documents reads one to the end, of ten three.
        :param retrieval_weight:
            How much the retriever's opinion counts: a Document's spans lose so many times what its `score` lacks to the
            best Document's, before their scores become probabilities. A Document without a finite score counts as the
            one with the lowest. The right weight depends on the retriever (`docs/method.md`); at 0, the reader alone
            decides.
        :param second_model:
            An ordinary question-answering model, a folder or an identifier for the Hugging Face hub, that reads the
            best Documents once more, question and passage together from the first layer: all answers are then its.
            It costs as many ordinary readings as `second_read` says, however many Documents there are. `None` for none.
            It is loaded with `model_kwargs` too, save `revision` and `subfolder`, which are the first model's.
        :param second_read:
            How many Documents are read again: those with the best spans, then, where fewer were read to the end, the
            retriever's next. At 0 none, and the answers are those of the first reading.
        :param int8:
            Whether the layers that run at question time, the second model's too, compute mostly in 8 bits. It is for
            a CPU, and faster; passages are encoded and kept as always.
        :param limits:
            What one call may ask for at most, as `btr_haystack.limits.Limits` or a dictionary of some of its fields;
            `run` cannot exceed it. If `None`, the token store's, or the defaults: 1,000 Documents and 1,000,000
            characters a call, 1,000 answers, a `max_seq_length` of 1,024, and windows that overlap within reason.
        :raises TypeError:
            If the token store, a whole number, a threshold or a switch is of another type.
        :raises ValueError:
            If a number is out of range, or the token store has other windows than the reader or merges tokens.
        """
        self._set_model(model, device, token, model_kwargs, max_seq_length, stride, token_store, int8, limits)
        check_flag(progress_bar=progress_bar)
        if token_store is not None and token_store.merged_share:
            msg = (
                f"token_store has merged_share = {token_store.merged_share}: its passages lack places of tokens, and "
                "this reader answers with places. Give it a store with merged_share = 0, or use BTRGenerativeReader"
            )
            raise ValueError(msg)
        self.top_k = top_k
        self.score_threshold = score_threshold
        self.max_batch_size = max_batch_size
        self.answers_per_seq = answers_per_seq
        self.no_answer = no_answer
        self.calibration_factor = calibration_factor
        self.overlap_threshold = overlap_threshold
        self.max_answer_length = max_answer_length
        self.progress_bar = progress_bar
        self.kept_share = kept_share
        self.retrieval_weight = retrieval_weight
        self.second_model = str(second_model) if second_model else None
        self.second_read = second_read
        self._settings()

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return settings_to_dict(
            self,
            self.model_kwargs,
            model=self.model_name_or_path,
            device=self.device,
            token=self.token,
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            max_batch_size=self.max_batch_size,
            answers_per_seq=self.answers_per_seq,
            no_answer=self.no_answer,
            calibration_factor=self.calibration_factor,
            overlap_threshold=self.overlap_threshold,
            token_store=self.token_store,
            max_answer_length=self.max_answer_length,
            progress_bar=self.progress_bar,
            kept_share=self.kept_share,
            retrieval_weight=self.retrieval_weight,
            second_model=self.second_model,
            second_read=self.second_read,
            int8=self.int8,
            limits=self.limits.to_dict(),
        )

    @component.output_types(answers=list[ExtractedAnswer], cache=dict[str, int])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        max_seq_length: int | None = None,
        stride: int | None = None,
        max_batch_size: int | None = None,
        answers_per_seq: int | None = None,
        no_answer: bool | None = None,
        overlap_threshold: float | None = AS_CONSTRUCTED,
        max_answer_length: int | None = None,
        kept_share: float | None = None,
        retrieval_weight: float | None = None,
        second_read: int | None = None,
    ) -> dict[str, Any]:
        """
        Locates and extracts answers from the given Documents using the given query.

        Parameters that are left out are those of the constructor.

        :param query:
            Query string. One of more tokens than the model has room for is cut, with a warning: half of
            `max_seq_length` for T5, which has relative positions, and for a model that reads jointly; the model's
            `max_query_length` (64) for others.
        :param documents:
            List of Documents in which you want to search for an answer to the query. Those without text are ignored.
        :param top_k:
            The maximum number of answers to return.
            An additional answer is returned if no_answer is set to True (default).
        :param score_threshold:
            Returns only answers with a score of at least this threshold.
        :param max_seq_length:
            Maximum number of tokens. Another one than the constructor's means that all documents are encoded anew for
            this run.
        :param stride:
            Number of tokens that overlap when a document is split. Another one than the constructor's means the same.
        :param max_batch_size:
            Maximum number of windows that are fed through the model at the same time.
        :param answers_per_seq:
            Number of answer candidates to consider per window.
        :param no_answer:
            Whether to return no answer scores.
        :param overlap_threshold:
            If set this will remove duplicate answers if they have an overlap larger than the
            supplied threshold. `None` keeps all answers; a negative number, as by default, means the constructor's.
        :param max_answer_length:
            Most tokens of an answer.
        :param kept_share:
            Share of the windows that are read to the end.
        :param retrieval_weight:
            How much the Documents' own scores count.
        :param second_read:
            How many Documents the second model reads again, where there is one.
        :returns:
            - `answers`: List of answers sorted by (desc.) answer score.
            - `cache`: how many documents came from the store ("hits") and how many had to be encoded ("misses").
        :raises TypeError:
            If the query is no string, something is not a Document, or a parameter is of another type than it takes.
        :raises ValueError:
            If a number is out of range, or there is no second model to read again. If Documents, text or a parameter
            are beyond the `limits`: then nothing has been read.
        :raises ModelError:
            If `kept_share` is below 1 and the model reads jointly (k = 0).
        :raises FingerprintError:
            If the token store holds passages of another model.
        :raises StoreError:
            If the token store cannot be read.
        """
        settings = self._settings(
            top_k=top_k,
            score_threshold=score_threshold,
            max_seq_length=max_seq_length,
            stride=stride,
            max_batch_size=max_batch_size,
            answers_per_seq=answers_per_seq,
            no_answer=no_answer,
            overlap_threshold=overlap_threshold,
            max_answer_length=max_answer_length,
            kept_share=kept_share,
            retrieval_weight=retrieval_weight,
            second_read=second_read,
        )
        answers, cache = self._answer([query], documents, settings)
        return {"answers": answers[0], "cache": cache}

    def read_batch(
        self, queries: Sequence[str], documents: list[Document], **parameters: Any
    ) -> list[list[ExtractedAnswer]]:
        """
        Answers many queries from the same Documents, which are fetched and decoded once.

        :param queries:
            Query strings.
        :param documents:
            Documents that every query is asked of; their scores count for every query, where they count at all.
        :param parameters:
            The other parameters of `run`, by name.
        :returns:
            For each query the answers that `run` gives.
        :raises TypeError:
            As `run`, and if the queries are a single string.
        :raises ValueError:
            As `run`.
        """
        return self._answer(queries, documents, self._settings(**parameters))[0]

    def deduplicate_by_overlap(
        self, answers: list[ExtractedAnswer], overlap_threshold: float | None
    ) -> list[ExtractedAnswer]:
        """
        De-duplicates answers of the same document that overlap.

        :param answers:
            List of answers to be deduplicated, best first.
        :param overlap_threshold:
            An answer goes if it has a larger overlap with an earlier one. If None, all answers are kept.
        :returns:
            List of deduplicated answers.
        """
        return list(distinct(answers, overlap_threshold))

    def _settings(
        self,
        *,
        top_k: int | None = None,
        score_threshold: float | None = None,
        max_seq_length: int | None = None,
        stride: int | None = None,
        max_batch_size: int | None = None,
        answers_per_seq: int | None = None,
        no_answer: bool | None = None,
        overlap_threshold: float | None = AS_CONSTRUCTED,
        max_answer_length: int | None = None,
        kept_share: float | None = None,
        retrieval_weight: float | None = None,
        second_read: int | None = None,
    ) -> _Settings:
        """What a run goes by, checked."""
        if isinstance(overlap_threshold, int | float) and overlap_threshold < 0:
            overlap_threshold = self.overlap_threshold
        settings = _Settings(
            max_seq_length=first_given(max_seq_length, self.max_seq_length),
            stride=first_given(stride, self.stride),
            max_batch_size=first_given(max_batch_size, self.max_batch_size),
            answers_per_seq=first_given(answers_per_seq, self.answers_per_seq, ANSWERS_PER_SEQ),
            max_answer_length=first_given(max_answer_length, self.max_answer_length),
            kept_share=first_given(kept_share, self.kept_share),
            retrieval_weight=first_given(retrieval_weight, self.retrieval_weight),
            second_read=first_given(second_read, self.second_read),
            rules=AnswerRules(
                top_k=first_given(top_k, self.top_k),
                score_threshold=first_given(score_threshold, self.score_threshold),
                no_answer=first_given(no_answer, self.no_answer),
                calibration_factor=self.calibration_factor,
                overlap_threshold=overlap_threshold,
            ),
        )
        check_windows(settings.max_seq_length, settings.stride, self.limits)
        check_flag(no_answer=settings.rules.no_answer)
        check_at_least(0, top_k=settings.rules.top_k, second_read=settings.second_read)
        check_at_least(0, int | float, overlap_threshold=overlap_threshold)
        check_at_least(0, int | float, optional=False, retrieval_weight=settings.retrieval_weight)
        check_at_least(
            1,
            max_batch_size=settings.max_batch_size,
            answers_per_seq=settings.answers_per_seq,
            max_answer_length=settings.max_answer_length,
        )
        self.limits.check("answers", settings.rules.top_k, "top_k")
        self.limits.check("answers", settings.answers_per_seq, "answers_per_seq")
        self.limits.check("documents", settings.second_read, "second_read")
        check_kept_share(settings.kept_share)
        threshold = settings.rules.score_threshold
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            msg = f"score_threshold is {threshold!r}; expected a probability, or None for no threshold"
            raise TypeError(msg)
        if threshold is not None and math.isnan(threshold):
            msg = f"score_threshold is {threshold}; expected a probability, or None for no threshold"
            raise ValueError(msg)
        if second_read and self.second_model is None:
            msg = f"second_read is {second_read}, but there is no second_model to read again; give the reader one"
            raise ValueError(msg)
        if not math.isfinite(settings.retrieval_weight):
            msg = f"retrieval_weight is {settings.retrieval_weight}; expected a finite number, 0 or more"
            raise ValueError(msg)
        if not (isinstance(self.calibration_factor, int | float) and 0 < self.calibration_factor < math.inf):
            msg = f"calibration_factor is {self.calibration_factor!r}; expected a finite number above 0"
            raise ValueError(msg)
        return settings

    def _answer(
        self, queries: Sequence[str], documents: list[Document], settings: _Settings
    ) -> tuple[list[list[ExtractedAnswer]], dict[str, int]]:
        """Answers to each query, and how many documents came from the store."""
        queries, documents = check_queries(queries), check_documents(documents)
        if not documents:
            return [[] for _ in queries], {"hits": 0, "misses": 0}
        check_request(self.limits, queries, documents)
        loaded = self._warm()
        readable = with_text(documents)
        scores = weighted_scores(readable, settings.retrieval_weight)
        found, hits = self._read(loaded, queries, readable, scores, settings)
        cache = {"hits": hits, "misses": len(readable) - hits}
        logger.info("{hits} documents came from the store, {misses} did not.", **cache)
        second = loaded.second if settings.second_read else None
        answers, rules = [], settings.rules
        for query, spans in zip(queries, found, strict=True):
            chosen, tokens = readable, loaded.reader.token_cache
            if second is not None:
                best = best_documents(spans, readable, settings.second_read)
                chosen, tokens = [readable[i] for i in best], second.token_cache
                of_best = None if scores is None else scores[best]
                spans = self._read_jointly(second, query, chosen, of_best, settings)  # noqa: PLW2901
            every = candidates(spans, chosen, tokens, query, rules.calibration_factor)
            answers.append(choose(every, query, rules))
        return answers, cache

    def _load(self) -> Reading[SplitReader]:
        """The model, its token store, and the second model where there is one."""
        second = None
        if self.second_model is not None:
            kwargs = {name: value for name, value in (self.model_kwargs or {}).items() if name not in OF_ONE_MODEL}
            second = load_reader(
                SplitReader, self.second_model, device=self.device, token=self.token, model_kwargs=kwargs,
                max_seq_length=self.max_seq_length, stride=self.stride, bits=None, coded_share=None, limits=self.limits,
            )  # fmt: skip
            if not second.joint:
                msg = (
                    f"second_model is {self.second_model}, which reads split (k = {second.model.config.k}); "
                    "expected an ordinary question-answering model (k = 0)"
                )
                raise ModelError(msg)
            second = self._computing(second)
        return replace(StoreReader._load(self), second=second)  # not super(): @component has made the class anew

    def _read(
        self,
        loaded: Reading[SplitReader],
        queries: Sequence[str],
        documents: list[Document],
        scores: np.ndarray | None,
        settings: _Settings,
    ) -> tuple[list[Spans], int]:
        """Candidates for each query, and how many documents came from the store."""
        if loaded.source is None:
            self._refuse_pruning(settings.kept_share)
            return [self._read_jointly(loaded.reader, query, documents, scores, settings) for query in queries], 0
        texts = [document.content or "" for document in documents]
        reader, passages, hits = loaded.fetch(
            texts,
            max_seq_length=settings.max_seq_length,
            stride=settings.stride,
            max_rows=settings.max_batch_size,
            progress_bar=self.progress_bar,
        )
        limits = {**_limits(scores, settings), "kept_share": settings.kept_share, "prior": rank_prior(documents)}
        return reader.read(queries, passages, **limits), hits

    def _read_jointly(
        self, reader: SplitReader, query: str, documents: list[Document], scores: np.ndarray | None, settings: _Settings
    ) -> Spans:
        """Candidates of an ordinary reader."""
        reader = reader.changed(max_seq_length=settings.max_seq_length, stride=settings.stride)
        texts = [document.content or "" for document in documents]
        return reader.read_jointly(query, texts, **_limits(scores, settings))


def _limits(scores: np.ndarray | None, settings: _Settings) -> dict[str, Any]:
    """What reading goes by, jointly or not; `scores` are the documents', weighted."""
    return {
        "spans_per_window": settings.answers_per_seq,
        "max_answer_length": settings.max_answer_length,
        "max_rows": settings.max_batch_size,
        "passage_scores": scores,
    }
