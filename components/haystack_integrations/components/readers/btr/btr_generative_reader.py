# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The generative reader that reads passages from bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack import Document, GeneratedAnswer, component, logging
from haystack.utils import ComponentDevice, Secret

from btr_haystack.citation import Citation
from btr_haystack.errors import ModelError
from btr_haystack.generation_settings import MOST_ROWS, check_generation
from btr_haystack.generative import GenerationConfig
from btr_haystack.generator import Compression, GenerativeReader, Written
from btr_haystack.limits import Limits
from btr_haystack.merge import MOST_MERGED
from btr_haystack.row_form import QUERY, RowForm
from haystack_integrations.components.readers.btr._answers import rank_prior
from haystack_integrations.components.readers.btr._checks import (
    check_at_least,
    check_documents,
    check_flag,
    check_kept_share,
    check_queries,
    check_share,
    check_windows,
    first_given,
)
from haystack_integrations.components.readers.btr._model import HUB_TOKEN, settings_to_dict
from haystack_integrations.components.readers.btr._reading import Reading, StoreReader, check_request, with_text
from haystack_integrations.components.readers.btr.binary_token_store import BinaryTokenStore

logger = logging.getLogger(__name__)

CONTENT_ALONE = (
    "passages that are kept as bits are of the documents' content alone; expected no passage_template, or a model "
    "without a split (k = 0) and no token store"
)
RESERVED = {  # generation arguments that have a parameter of their own, or are what the answer is made of
    "num_return_sequences": "top_k", "answers": "top_k", "max_rows": "max_batch_size", "compression": "merged_inside",
    "kept_share": "kept_share", "prior": "", "form": "passage_template", "fields": "passage_template",
    "tokenizer": "", "encoder_outputs": "", "attention_mask": "", "return_dict_in_generate": "", "output_logits": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Settings:
    """What one run goes by: its own arguments, else those of the constructor."""

    top_k: int
    max_batch_size: int | None
    generation_kwargs: dict[str, Any]
    compression: Compression
    kept_share: float | None


@component
class BTRGenerativeReader(StoreReader[GenerativeReader]):
    """
    Writes answers to a given query from Documents, reading them from bits.

    A Fusion-in-Decoder reader of the T5 family: the documents are encoded each for itself, and the decoder attends to
    all of them. It reads the same `BinaryTokenStore` as a `BTRReader` of the same model. A document that the store
    lacks is encoded on the spot, and written back if the store can be written.

    An ordinary T5, FLAN-T5, FiD or Atlas checkpoint works as well, in safetensors. It is then read as Fusion-in-Decoder
    always is, and nothing is kept. Query and passage are divided by the tokenizer's separator; a model that was trained
    on one text of both, as FiD's and Atlas's were, wants a `passage_template`:

    ```python
    fid = {"prompt": "question: {query}", "passage_template": "title: {title} context: {content}"}
    atlas = {
        "prompt": "question: {query} answer: <extra_id_0>", "passage_template": "title: {title} context: {content}",
    }
    reader = BTRGenerativeReader("my-fid-model", **fid)  # titles are in the documents' meta
    ```

    ```python
    from haystack import Document

    from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRGenerativeReader

    docs = [Document(content="Oslo is the capital of Norway.")]

    store = BinaryTokenStore(url="sqlite:///store.db")
    reader = BTRGenerativeReader(token_store=store)
    result = reader.run(query="What is the capital of Norway?", documents=docs)
    print(result["answers"][0].data)
    ```
    """

    _kind = GenerativeReader

    def __init__(
        self,
        model: Path | str | None = None,
        device: ComponentDevice | None = None,
        token: Secret | None = HUB_TOKEN,
        top_k: int = 1,
        max_seq_length: int = 384,
        stride: int = 128,
        max_batch_size: int | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        *,
        token_store: BinaryTokenStore | None = None,
        prompt: str = QUERY,
        merged_inside: float = 0.0,
        merged_across: float = 0.0,
        merge_every: int = 3,
        kept_share: float | None = None,
        progress_bar: bool = False,
        int8: bool = False,
        passage_template: str | None = None,
        limits: Limits | dict[str, int] | None = None,
    ) -> None:
        """
        Set up the reader; nothing is loaded before it is used.

        :param model:
            A BTR model with a decoder, or a T5 sequence-to-sequence model: a folder or an identifier for the Hugging
            Face hub. If `None`, the model of the token store; without one, the model that comes with btr-haystack.
        :param device:
            The device on which the model is loaded. If `None`, that of the token store, or the default device.
        :param token:
            The API token used to download private models from Hugging Face; unless another is given, the token store's.
        :param top_k:
            Number of answers to return per query. More than one are found by beam search, unless `generation_kwargs`
            ask for sampling.
        :param max_seq_length:
            Maximum number of tokens of question and passage together. If a document exceeds it, it is split. With T5, a
            question of more than 64 tokens makes its rows so much longer.
        :param stride:
            Number of tokens that overlap when a document is split because it exceeds max_seq_length.
        :param max_batch_size:
            Maximum number of windows that are fed through the encoder at the same time. If `None`, as many as fit.
        :param generation_kwargs:
            For transformers' `generate`: `max_new_tokens` (32 by default), `num_beams`, `do_sample`, `stop_strings`,
            `generation_config` (or a dictionary of its fields), ... `btr_haystack.generation_settings` lists them, each
            with its ceiling; others are refused.
        :param model_kwargs:
            Additional keyword arguments passed to the model's `from_pretrained`: `dtype`, `device_map`, `revision`,
            `subfolder`, `attn_implementation` ("eager" or "sdpa"), `local_files_only`. If `None`, those of the token
            store.
        :param token_store:
            Where the documents' bits are. Its `max_seq_length` and `stride` must be the reader's. Without a store, the
            reader keeps the bits of the documents that it has encoded last in memory, up to 256 MB of them.
        :param prompt:
            What the model is asked, with the query in place of "{query}": "question: {query}" for models that were
            trained so. What looks like a special token in it is text, unless there is a `passage_template`.
        :param merged_inside:
            Share of a passage's tokens that is merged with others like them after each upper layer, from 0 to 0.5;
            after each but the first where `kept_share` is below 1. More is faster and loses answers; 0 changes nothing.
        :param merged_across:
            Share of all rows' tokens that is merged before the decoder, and again every `merge_every` layers of it.
        :param merge_every:
            Number of decoder layers between two such merges.
        :param kept_share:
            Share of the windows that are read to the end and written from, above 0 and up to 1: those in which the span
            head finds the likeliest spans after the first upper layer; the order of the Documents' scores counts, too.
            Less is faster and loses answers. It needs a BTR model whose span head is trained. `None` for the model's
            own share (`kept_share` in its config.json), 0.3 for the default one.
        :param progress_bar:
            Whether to show a progress bar while documents are encoded that the store lacks.
        :param int8:
            Whether the layers that run at question time, the decoder's too, compute mostly in 8 bits. It is for a
            CPU, and faster; passages are encoded and kept as always.
        :param passage_template:
            How a document is written behind the prompt, both of them one text that ends with the only separator, for
            models without a split (k = 0) that were trained so: "title: {title} context: {content}" for FiD's. It names
            {content} once; other names are those of the documents' `meta`, and "{{" is a brace. A document that
            exceeds `max_seq_length` is split, and each window has prompt and fields again. Special tokens of the
            tokenizer that prompt and template name are those tokens. If `None`, query and content are a pair.
        :param limits:
            What one call may ask for at most, as `btr_haystack.limits.Limits` or a dictionary of some of its fields;
            `run` cannot exceed it. If `None`, the token store's, or the defaults: 1,000 Documents and 1,000,000
            characters a call, a `max_seq_length` of 1,024, and windows that overlap within reason.
        :raises TypeError:
            If the token store, a whole number, a merged share, a switch or the template is of another type.
        :raises ValueError:
            If a number is out of range, the prompt has no place for the query, the token store has other windows
            than the reader, an argument for the model or for the generation is not let through, the template has no
            place for the content or more than names in braces, or there is a token store beside it.
        """
        self._set_model(model, device, token, model_kwargs, max_seq_length, stride, token_store, int8, limits)
        check_flag(progress_bar=progress_bar)
        if not isinstance(prompt, str) or QUERY not in prompt:
            msg = f"prompt is {prompt!r}; expected a text with {QUERY} where the query belongs"
            raise ValueError(msg)
        self.top_k = top_k
        self.max_batch_size = max_batch_size
        self.generation_kwargs = generation_kwargs
        self.prompt = prompt
        self.merged_inside = merged_inside
        self.merged_across = merged_across
        self.merge_every = merge_every
        self.kept_share = kept_share
        self.progress_bar = progress_bar
        self.passage_template = passage_template
        check_windows(max_seq_length, stride, self.limits)
        self._settings()
        if self._form is not None and token_store is not None:
            msg = f"passage_template is {passage_template!r}, but there is a token store: {CONTENT_ALONE}"
            raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        generation = dict(self.generation_kwargs or {})
        if isinstance(generation.get("generation_config"), GenerationConfig):
            generation["generation_config"] = generation["generation_config"].to_diff_dict()
        return settings_to_dict(
            self,
            self.model_kwargs,
            model=self.model_name_or_path,
            device=self.device,
            token=self.token,
            top_k=self.top_k,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            max_batch_size=self.max_batch_size,
            generation_kwargs=generation or self.generation_kwargs,
            token_store=self.token_store,
            prompt=self.prompt,
            merged_inside=self.merged_inside,
            merged_across=self.merged_across,
            merge_every=self.merge_every,
            kept_share=self.kept_share,
            progress_bar=self.progress_bar,
            int8=self.int8,
            passage_template=self.passage_template,
            limits=self.limits.to_dict(),
        )

    @property
    def _form(self) -> RowForm | None:
        """How query and document become one text; None where they are a pair."""
        return None if self.passage_template is None else RowForm.of(self.prompt, self.passage_template)

    def _load(self) -> Reading[GenerativeReader]:
        """The model, refused where it has a split and rows are to be of one text."""
        loaded = StoreReader._load(self)  # Haystack makes the class anew: super() does not know it
        if self._form is not None and loaded.source is not None:
            msg = (
                f"passage_template is {self.passage_template!r}, but {self.model_name_or_path} has a split "
                f"(k = {loaded.reader.model.config.k}): {CONTENT_ALONE}"
            )
            raise ModelError(msg)
        return loaded

    @component.output_types(answers=list[GeneratedAnswer], cache=dict[str, int])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        max_batch_size: int | None = None,
        merged_inside: float | None = None,
        merged_across: float | None = None,
        merge_every: int | None = None,
        kept_share: float | None = None,
    ) -> dict[str, Any]:
        """
        Writes answers to the given query from the given Documents.

        Parameters that are left out are those of the constructor.

        :param query:
            Query string. One of more than half of `max_seq_length` tokens, its prompt included, is cut, with a warning.
        :param documents:
            List of Documents from which the query is answered, all of them together. Those without text are ignored.
        :param top_k:
            Number of answers to return.
        :param generation_kwargs:
            For transformers' `generate`; they go before those of the constructor, one by one.
        :param max_batch_size:
            Maximum number of windows that are fed through the encoder at the same time.
        :param merged_inside:
            Share of a passage's tokens that is merged after each upper layer.
        :param merged_across:
            Share of all passages' tokens that is merged before the decoder, and every `merge_every` layers of it.
        :param merge_every:
            Number of decoder layers between two such merges.
        :param kept_share:
            Share of the windows that are read to the end and written from.
        :returns:
            - `answers`: List of answers, best first, each with the documents that have text. Its `meta` has:
              "score", the mean log-probability of its tokens, -708 for an empty answer;
              "citation", where it stands word for word: "document" (an id), "start" and "end" (characters of its
              content), or None where it stands in none of the documents, of which there is a warning, too;
              "hits" and "misses" of the store.
            - `cache`: how many documents came from the store ("hits") and how many had to be encoded ("misses").
        :raises TypeError:
            If the query is no string, something is not a Document, or a parameter is of another type than it takes.
        :raises ValueError:
            If a number is out of range, or a generation argument is one that the reader sets itself, or is not let
            through. If Documents, text or a parameter are beyond the `limits`: then nothing has been read.
        :raises ModelError:
            If the model has no decoder, or reads jointly (k = 0) and has no upper layers to merge or prune after; if it
            does not, and there is a passage template.
        """
        settings = self._settings(
            top_k=top_k,
            generation_kwargs=generation_kwargs,
            max_batch_size=max_batch_size,
            merged_inside=merged_inside,
            merged_across=merged_across,
            merge_every=merge_every,
            kept_share=kept_share,
        )
        answers, cache = self._answer([query], documents, settings)
        nowhere = [answer.data for answer in answers[0] if answer.meta["citation"] is None]
        if nowhere:
            logger.warning(
                "{count} of {all} answers stand in none of the documents (`citation` in their meta is None): {data}",
                count=len(nowhere),
                all=len(answers[0]),
                data=[text[:60] for text in nowhere[:3]],
            )
        return {"answers": answers[0], "cache": cache}

    def read_batch(
        self, queries: Sequence[str], documents: list[Document], **parameters: Any
    ) -> list[list[GeneratedAnswer]]:
        """
        Answers many queries from the same Documents, which are fetched and decoded once.

        :param queries:
            Query strings.
        :param documents:
            Documents from which every query is answered.
        :param parameters:
            The other parameters of `run`, by name.
        :returns:
            For each query the answers that `run` gives.
        """
        return self._answer(queries, documents, self._settings(**parameters))[0]

    def _settings(
        self,
        *,
        top_k: int | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        max_batch_size: int | None = None,
        merged_inside: float | None = None,
        merged_across: float | None = None,
        merge_every: int | None = None,
        kept_share: float | None = None,
    ) -> _Settings:
        """What a run goes by, checked."""
        for given in (self.generation_kwargs, generation_kwargs):
            if given is None:
                continue
            if not isinstance(given, dict):
                msg = f"generation_kwargs is {given!r}; expected a dictionary of arguments for transformers' generate"
                raise TypeError(msg)
            for name in RESERVED.keys() & given.keys():
                msg = f"generation_kwargs has {name!r}, which the reader sets itself"
                raise ValueError(f"{msg}: use {RESERVED[name]}" if RESERVED[name] else msg)
            check_generation(given)
        inside, across = first_given(merged_inside, self.merged_inside), first_given(merged_across, self.merged_across)
        every = first_given(merge_every, self.merge_every)
        check_share(MOST_MERGED, merged_inside=inside, merged_across=across)
        check_at_least(1, merge_every=every)
        settings = _Settings(
            top_k=first_given(top_k, self.top_k),
            max_batch_size=first_given(max_batch_size, self.max_batch_size),
            generation_kwargs={**(self.generation_kwargs or {}), **(generation_kwargs or {})},
            compression=Compression(inside, across, every),
            kept_share=first_given(kept_share, self.kept_share),
        )
        check_kept_share(settings.kept_share)
        check_at_least(1, optional=False, top_k=settings.top_k)
        if settings.top_k > MOST_ROWS:
            msg = f"top_k is {settings.top_k}; expected at most {MOST_ROWS}: answers are written side by side"
            raise ValueError(msg)
        check_generation({**settings.generation_kwargs, "num_return_sequences": settings.top_k})
        check_at_least(1, max_batch_size=settings.max_batch_size)
        return settings

    def _answer(
        self, queries: Sequence[str], documents: list[Document], settings: _Settings
    ) -> tuple[list[list[GeneratedAnswer]], dict[str, int]]:
        """Answers to each query, and how many documents came from the store."""
        queries, documents = check_queries(queries), check_documents(documents)
        if not documents:
            return [[] for _ in queries], {"hits": 0, "misses": 0}
        readable = self._checked(queries, documents)
        loaded = self._warm()
        asked = queries if self._form is not None else [self.prompt.replace(QUERY, query) for query in queries]
        written, hits = self._write(loaded, asked, readable, settings)
        cache = {"hits": hits, "misses": len(readable) - hits}
        logger.info("{hits} documents came from the store, {misses} did not.", **cache)
        answers = [
            [
                GeneratedAnswer(
                    data=one.text,
                    query=query,
                    documents=list(readable),
                    meta={"score": one.score, "citation": _cited(one.citation, readable), **cache},
                )
                for one in found
            ]
            for query, found in zip(queries, written, strict=True)
        ]
        return answers, cache

    def _checked(self, queries: list[str], documents: list[Document]) -> list[Document]:
        """The documents that have text; raises where they are beyond the limits, with all that is written around it."""
        check_request(self.limits, queries, documents)
        readable = with_text(documents)
        if self._form is not None:  # query and fields are tokenised with each document
            for query in queries:
                filled = (
                    self._form.filled(query, document.content or "", _values(document, self._form.fields))
                    for document in readable
                )
                self.limits.check_texts(len(documents), sum(len(text) for row in filled for _, text in row))
        return readable

    def _write(
        self, loaded: Reading[GenerativeReader], asked: list[str], documents: list[Document], settings: _Settings
    ) -> tuple[list[list[Written]], int]:
        """Answers to each prompt, and how many documents came from the store."""
        texts = [document.content or "" for document in documents]
        limits: dict[str, Any] = {
            **settings.generation_kwargs,
            "answers": settings.top_k,
            "compression": settings.compression,
            "max_rows": settings.max_batch_size,
        }
        if loaded.source is None:
            self._refuse_pruning(settings.kept_share)
            if settings.compression.inside:
                msg = (
                    f"merged_inside is {settings.compression.inside}, but {self.model_name_or_path} reads question and "
                    "passage jointly (k = 0) and has no upper layers; expected 0, or a BTR model"
                )
                raise ModelError(msg)
            if self._form is not None:
                limits |= {"form": self._form, "fields": _fields(documents, self._form.fields)}
            return loaded.reader.write_jointly(asked, texts, **limits), 0
        reader, passages, hits = loaded.fetch(
            texts,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            max_rows=settings.max_batch_size,
            progress_bar=self.progress_bar,
        )
        limits |= {"kept_share": settings.kept_share, "prior": rank_prior(documents), "texts": texts}
        return reader.write(asked, passages, **limits), hits


def _cited(citation: Citation | None, documents: list[Document]) -> dict[str, Any] | None:
    """Where an answer stands, for its meta."""
    if citation is None:
        return None
    return {"document": documents[citation.text].id, "start": citation.start, "end": citation.end}


def _fields(documents: list[Document], names: Sequence[str]) -> list[dict[str, str]]:
    """What the passage template names, of each document's meta; empty text, and one warning, where it is not there."""
    lacking = {name: sum(document.meta.get(name) is None for document in documents) for name in names}
    if any(lacking.values()):
        logger.warning(
            "The passage template names what documents lack in their meta, and gets empty text for it: {lacking}.",
            lacking=", ".join(
                f"{{{name}}} in {count} of {len(documents)} documents" for name, count in lacking.items() if count
            ),
        )
    return [_values(document, names) for document in documents]


def _values(document: Document, names: Sequence[str]) -> dict[str, str]:
    found = ((name, document.meta.get(name)) for name in names)
    return {name: "" if value is None else str(value) for name, value in found}
