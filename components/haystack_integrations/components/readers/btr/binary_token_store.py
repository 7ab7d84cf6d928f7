# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Where passages are kept as bits, and the step of an indexing pipeline that puts them there."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haystack import Document, component, logging
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import ComponentDevice, Secret
from tqdm import tqdm  # type: ignore[import-untyped]

from btr_haystack.default import DEFAULT_MODEL
from btr_haystack.errors import FingerprintError, LimitError, ModelError, NoStoreError
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.limits import Limits, in_batches_of
from btr_haystack.merge import MOST_MERGED
from btr_haystack.reader import SplitReader
from btr_haystack.record import cut, pack, passage_key
from btr_haystack.report import StoreReport, report
from btr_haystack.stores import MEMORY, Store, absolute_url, open_store
from haystack_integrations.components.readers.btr._checks import (
    check_at_least,
    check_device,
    check_documents,
    check_flag,
    check_model_kwargs,
    check_share,
    check_stream,
    check_windows,
)
from haystack_integrations.components.readers.btr._model import (
    HUB_TOKEN,
    LOADING,
    load_reader,
    settings_from_dict,
    settings_to_dict,
    telemetry_name,
)
from haystack_integrations.components.readers.btr._read_through import (
    CHUNK,
    CHUNK_TOKENS,
    in_chunks,
    sound_records,
    stored_passages,
)

logger = logging.getLogger(__name__)

BATCH_CHARACTERS = 1_000_000  # of the documents that are tokenised at a time, unless a single one has more
NAMED = 3  # documents that a warning names
LONGEST_NAME = 60


@component
class BinaryTokenStore:
    """
    Encodes documents once into bits and keeps them for `BTRReader`.

    A passage is known by its text: documents with the same text share one record, whatever their ids and meta are. One
    store holds the passages of one model with one choice of windows; another one is refused.

    ```python
    from haystack import Document

    from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

    docs = [Document(content="Oslo is the capital of Norway.")]

    store = BinaryTokenStore(url="sqlite:///store.db")
    store.run(documents=docs)

    reader = BTRReader(token_store=store)
    result = reader.run(query="What is the capital of Norway?", documents=docs)
    ```
    """

    def __init__(
        self,
        model: Path | str | None = None,
        url: str = "sqlite:///store.db",
        device: ComponentDevice | None = None,
        token: Secret | None = HUB_TOKEN,
        max_seq_length: int = 384,
        stride: int = 128,
        batch_size: int = CHUNK,
        progress_bar: bool = True,
        model_kwargs: dict[str, Any] | None = None,
        bits: int | None = None,
        coded_share: float | None = None,
        keep_ids: bool = False,
        merged_share: float = 0.0,
        write_back: bool = True,
        limits: Limits | dict[str, int] | None = None,
    ) -> None:
        """
        Set up the store; nothing is loaded or opened before it is used.

        :param model:
            A BTR model with codes: a folder or an identifier of the Hugging Face hub. If `None`, the model that comes
            with btr-haystack.
        :param url:
            "sqlite:///store.db" (in the working directory), "sqlite:////var/lib/store.db" (anywhere), or "memory://",
            which lasts until `close`.
        :param device:
            The device on which passages are encoded. If `None`, the default device is automatically selected.
        :param token:
            The API token used to download private models from Hugging Face.
        :param max_seq_length:
            Maximum number of tokens of question and passage together; longer documents are split into windows. Fixed
            for a store: its readers must have the same.
        :param stride:
            Number of tokens that neighbouring windows of a long document share. Fixed for a store as well.
        :param batch_size:
            Number of documents that are encoded and committed at a time. An interrupted run loses no more than these.
        :param progress_bar:
            Whether to show a progress bar while encoding.
        :param model_kwargs:
            Additional keyword arguments for the model's `from_pretrained`: `dtype`, `device_map`, `revision`,
            `subfolder`, `attn_implementation` ("eager" or "sdpa"), `local_files_only`.
        :param bits:
            How many of a code's first bits are kept; `None` for the model's own number. The model must have been
            trained for it (`btr train --nested`). Fixed for a store.
        :param coded_share:
            Share of each window's tokens that keep bits, from 0 to 1: those of which the token's id tells least. `None`
            for the model's own. Fixed for a store.
        :param keep_ids:
            Whether to keep token ids, too, 2 bytes a token, so that records can be read without the texts
            (`btr_haystack.unpack`). Readers take them from the texts all the same, and refuse a record of others.
        :param merged_share:
            Share of each window's tokens that are merged into others like them, from 0 to 0.5: fewer bits, and fewer
            tokens for `BTRGenerativeReader` to read, at much loss (`docs/method.md`). `BTRReader`, which needs every
            token's place, refuses such a store. Fixed for a store.
        :param write_back:
            Whether readers write back what they had to encode. If not, only indexing fills the store; where readers
            serve strangers, what those send is then not kept.
        :param limits:
            What is encoded at most, as `btr_haystack.limits.Limits` or a dictionary of some of its fields: characters
            and windows of a Document, and `max_seq_length`. A Document beyond it is left out, with a warning. If
            `None`, the defaults; they are also those of the store's readers that are given none.
        :raises TypeError:
            If a number or a switch is of another type.
        :raises ValueError:
            If a number is out of range.
        """
        check_at_least(1, optional=False, batch_size=batch_size)
        self.limits = Limits.of(limits)
        check_windows(max_seq_length, stride, self.limits)
        check_at_least(0, bits=bits)
        check_share(coded_share=coded_share)
        check_share(MOST_MERGED, optional=False, merged_share=merged_share)
        check_flag(keep_ids=keep_ids, progress_bar=progress_bar, write_back=write_back)
        check_model_kwargs(model_kwargs)
        check_device(device, model_kwargs)
        self.model_name_or_path = str(model or DEFAULT_MODEL)
        self.url = url
        self.device = device
        self.token = token
        self.max_seq_length = max_seq_length
        self.stride = stride
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.model_kwargs = model_kwargs
        self.bits = bits
        self.coded_share = coded_share
        self.keep_ids = keep_ids
        self.merged_share = merged_share
        self.write_back = write_back
        self._reader: SplitReader | None = None
        self._store: Store | None = None
        self._copies_told = False

    def __getstate__(self) -> dict[str, Any]:
        """
        What a copy or a pickle takes along: the settings, and the passages of a store in memory.

        The model is loaded anew where the copy is used, and a file is opened anew: the same one, also where a relative
        url would name another.
        """
        state = {**self.__dict__, "_reader": None, "_place": absolute_url(self.url)}
        if self._store is None or not self.in_memory:
            state["_store"] = None
        elif not self._copies_told:
            self._copies_told = True
            logger.warning(
                "The {count} passages of a memory:// store go with each copy or pickle of it. What is then written to "
                "one of them is not seen by the others; processes can share a store with the url sqlite:///store.db.",
                count=len(self._store),
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """
        Take up what `__getstate__` gives.
        """
        place = state.pop("_place")
        self.__dict__.update(state)
        if absolute_url(self.url) != place:
            self.url = place

    def _get_telemetry_data(self) -> dict[str, Any]:
        """
        Data that is sent to Posthog for usage analytics.
        """
        return {"model": telemetry_name(self.model_name_or_path)}

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
            url=self.url,
            device=self.device,
            token=self.token,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            batch_size=self.batch_size,
            progress_bar=self.progress_bar,
            bits=self.bits,
            coded_share=self.coded_share,
            keep_ids=self.keep_ids,
            merged_share=self.merged_share,
            write_back=self.write_back,
            limits=self.limits.to_dict(),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "BinaryTokenStore":
        """
        Deserializes the component from a dictionary.

        :param data:
            Dictionary to deserialize from.
        :returns:
            Deserialized component.
        """
        return settings_from_dict(cls, data)

    def warm_up(self) -> None:
        """
        Loads the model and opens the store, once.

        :raises FileNotFoundError:
            If the model can only be a folder, and there is none.
        :raises ModelError:
            If the model reads jointly (k = 0): nothing of a passage can then be kept.
        :raises FingerprintError:
            If the store holds passages of another model.
        :raises StoreError:
            If the store cannot be opened.
        """
        self._warm()

    @property
    def in_memory(self) -> bool:
        """
        Whether the passages are gone when the store is closed.
        """
        return self.url == MEMORY

    @property
    def reader(self) -> SplitReader:
        """
        The model that encodes, loaded when it is needed; a `BTRReader` of the same model shares it.
        """
        return self._warm()

    def _warm(self) -> SplitReader:
        reader = self._reader
        if reader is None:
            with LOADING:
                reader = self._reader = self._reader or self._load()
        return reader

    def _load(self) -> SplitReader:
        reader = load_reader(
            SplitReader,
            self.model_name_or_path,
            device=self.device,
            token=self.token,
            model_kwargs=self.model_kwargs,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            bits=self.bits,
            coded_share=self.coded_share,
            merged_share=self.merged_share,
            limits=self.limits,
        )
        if reader.joint:
            msg = (
                f"{self.model_name_or_path} reads question and passage jointly (k = 0), so nothing of a passage can be "
                "kept. Choose a BTR model with k >= 1 and codes, or use BTRReader without a token store."
            )
            raise ModelError(msg)
        self.open(reader.fingerprint)
        return reader

    def open(self, fingerprint: Fingerprint) -> Store:
        """
        Gives the records to whoever can read them, and opens the store where it is not open yet.

        :param fingerprint:
            Of the model that will read.
        :returns:
            The open store.
        :raises FingerprintError:
            If the store holds passages of another model.
        :raises StoreError:
            If the store cannot be opened.
        """
        store = self._store
        if store is None:  # else no lock: another component may be loading for minutes
            with LOADING:
                if self._store is None:
                    self._store = open_store(self.url, fingerprint)
                store = self._store
        if store.fingerprint != fingerprint:
            msg = (
                f"{self.url} holds passages encoded by {store.fingerprint}; they are of no use to {fingerprint}. "
                "Use that model and its settings, or the url of another store."
            )
            raise FingerprintError(msg)
        return store

    @component.output_types(documents=list[Document], documents_written=int)
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Encodes the documents that the store lacks and keeps them; passes all documents on as they came.

        :param documents:
            Documents to encode. Those without text are passed on only.
        :returns:
            - `documents`: the same documents.
            - `documents_written`: how many new passages the store has got. Documents beyond the `limits` are left out.
        """
        return {"documents": documents, "documents_written": self.write_documents(documents)}

    def write_documents(self, documents: Iterable[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """
        Encodes documents and keeps them, a batch at a time: memory does not grow with their number.

        Each batch is committed. After an interruption, call it again with the same documents: it goes on where it
        stopped. A document that cannot be kept, because it is beyond the `limits`, is left out; one warning names such
        documents.

        :param documents:
            Documents to encode, in a list or from anything that gives one after another.
        :param policy:
            What to do with a text that the store has already: `SKIP` it (also `NONE`, the default), `OVERWRITE` it, or
            `FAIL`, which leaves the batches before it written.
        :returns:
            How many passages were encoded and written.
        :raises DuplicateDocumentError:
            If a text is in the store already and the policy is `FAIL`.
        :raises TypeError:
            If something is not a Document, or the policy is none.
        """
        check_stream(documents)
        if not isinstance(policy, DuplicatePolicy):
            msg = f"policy is {policy!r}; expected a DuplicatePolicy: NONE, SKIP, OVERWRITE or FAIL"
            raise TypeError(msg)
        self.warm_up()
        total = len(documents) if isinstance(documents, Sized) else None
        written = empty = 0
        beyond = _Beyond()
        with tqdm(total=total, desc="Encoding passages", disable=not self.progress_bar) as bar, beyond.told():
            for batch in in_batches_of(_checked(documents), _characters, BATCH_CHARACTERS, self.batch_size):
                readable = [document for document in batch if document.content]
                written += self._write(readable, policy, beyond)
                empty += len(batch) - len(readable)
                bar.update(len(batch))
        if empty:
            logger.warning("{count} documents have no text and were not encoded.", count=empty)
        return written

    def _write(self, documents: list[Document], policy: DuplicatePolicy, beyond: "_Beyond") -> int:
        """Encodes and keeps documents with text, those that are not beyond the limits."""
        reader = self.reader
        store = self.open(reader.fingerprint)
        texts = {passage_key(document.content or ""): document.content or "" for document in documents}
        found = dict(zip(texts, reader.tokens_or_refusals(list(texts.values())), strict=True))
        new = {key: one for key, one in found.items() if not isinstance(one, LimitError)}
        kept = 0
        for document in documents:
            one = found[passage_key(document.content or "")]
            if isinstance(one, LimitError):
                beyond.add(document, one)
            else:
                kept += 1
        if policy is not DuplicatePolicy.OVERWRITE:
            present = stored_passages(store, reader, new)
            known = kept - len(new.keys() - present)
            if policy is DuplicatePolicy.FAIL and known:
                msg = f"{known} of {len(documents)} documents of this batch have a text that was written already."
                raise DuplicateDocumentError(msg)
            new = {key: one for key, one in new.items() if key not in present}
        written = 0
        for keys in in_batches_of(new, lambda key: len(new[key].ids), CHUNK_TOKENS):
            passages = reader.code([new[key] for key in keys])
            store.put_many([(key, pack(one, keep_ids=self.keep_ids)) for key, one in zip(keys, passages, strict=True)])
            written += len(keys)
        return written

    def copy_from(self, other: "BinaryTokenStore") -> int:
        """
        Takes over the records of another store, cut to this store's `bits`; nothing is encoded.

        Each batch is committed. After an interruption, call it again. Records that have token ids keep them, and others
        get none, whatever this store's `keep_ids`.

        :param other:
            A store of the same model and windows, with as many bits or more.
        :returns:
            How many passages were copied; those that are here already are not.
        :raises TypeError:
            If it is no store.
        :raises ValueError:
            If the other store has fewer bits.
        :raises NoStoreError:
            If the other store is not there.
        :raises FingerprintError:
            If the other store holds passages of another model, cut into other windows or with another `coded_share` or
            `merged_share`.
        """
        if not isinstance(other, BinaryTokenStore):
            msg = f"other is {other!r:.80}; expected a BinaryTokenStore to copy from"
            raise TypeError(msg)
        source = other._existing()
        if source is None:
            msg = f"{other.url}: there is no store to copy from"
            raise NoStoreError(msg)
        reader = self.reader
        bits = reader.model.config.kept_bits if other.bits is None else other.bits
        if bits < reader.bits:
            msg = f"{other.url} has {bits} bits a token and {self.url} has {reader.bits}; bits cannot be added"
            raise ValueError(msg)
        whole = reader.changed(bits=bits)
        expected, layout = whole.fingerprint, whole.layout
        if source.fingerprint != expected:
            msg = (
                f"{other.url} holds passages encoded by {source.fingerprint}; they cannot be cut to {expected}. "
                "Give both stores the same model, windows, coded_share and merged_share."
            )
            raise FingerprintError(msg)
        store = self.open(reader.fingerprint)
        copied = 0
        with tqdm(total=len(source), desc="Copying passages", disable=not self.progress_bar) as bar:
            for keys in in_chunks(source.keys(), self.batch_size):
                new = [key for key, record in zip(keys, store.get_many(keys), strict=True) if record is None]
                records = sound_records(source, new, lambda _, record: cut(record, reader.bits, layout))
                store.put_many(records.items())
                copied += len(records)
                bar.update(len(keys))
        return copied

    def count_documents(self) -> int:
        """
        Counts the passages: documents of the same text are one.

        :returns:
            Number of passages; 0 where there is no store yet, and none is made.
        """
        store = self._existing()
        return 0 if store is None else len(store)

    def delete_documents(self, documents: Iterable[Document]) -> int:
        """
        Deletes the passages of some documents.

        The store knows texts, not ids, so it takes the documents themselves, for example those that a document store's
        `filter_documents` gives. A text that other documents have as well is gone for them too, until it is read or
        written again.

        :param documents:
            Documents whose texts are to go. Those that the store lacks are passed over.
        :returns:
            How many passages were deleted.
        :raises TypeError:
            If something is not a Document.
        """
        check_stream(documents)
        store = self._existing()
        if store is None:
            return 0
        deleted = 0
        for batch in in_chunks(documents, self.batch_size):
            texts = {document.content for document in check_documents(batch) if document.content}
            deleted += store.delete_many([passage_key(text) for text in texts])
        return deleted

    def keep_only(self, documents: Iterable[Document]) -> int:
        """
        Deletes the passages that belong to none of some documents, such as earlier versions of a page.

        The store then follows its corpus: give it all documents, for example those of a document store's
        `filter_documents`. Either all of these passages go or, if anything fails, none. Nothing is encoded: documents
        whose texts the store lacks stay missing until they are read or written. What is written while the documents
        are taken stays. Without a document that has text, every passage goes.

        :param documents:
            All documents whose passages are to stay. They may be a stream, and are not held in memory. Those without
            text are ignored.
        :returns:
            How many passages were deleted. Their space is used again by new ones; `compact` gives it back to the disk.
        :raises TypeError:
            If something is not a Document.
        :raises StoreError:
            If the store cannot be written.
        """
        check_stream(documents)
        store = self._existing()
        if store is None:
            return 0
        return store.keep_only(
            passage_key(document.content)
            for batch in in_chunks(documents, self.batch_size)
            for document in check_documents(batch)
            if document.content
        )

    def keys(self) -> Iterator[bytes]:
        """
        Goes over the keys of the passages; the store may be read and changed meanwhile.

        :returns:
            Of each passage the key that `btr_haystack.passage_key` gives for its text, in no promised order.
        """
        store = self._existing()
        return iter(()) if store is None else store.keys()

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """
        Deletes passages by their keys, for whoever has kept those and no longer has the texts.

        :param keys:
            Of the passages that are to go. Those that the store lacks are passed over.
        :returns:
            How many passages were deleted.
        :raises StoreError:
            If something is not a key, or the store cannot be written. Then nothing is deleted.
        """
        store = self._existing()
        return 0 if store is None else store.delete_many(keys)

    def compact(self) -> None:
        """
        Gives the space of deleted passages back to the disk.
        """
        store = self._existing()
        if store is not None:
            store.compact()

    def report(self) -> StoreReport:
        """
        Tells what the store takes, with everything counted, against float states of the same tokens.

        :returns:
            The sizes; printed, it is one line.
        """
        return report(self._opened())

    def _opened(self) -> Store:
        """The open store, made where there is none. One that exists is opened without the model."""
        store = self._existing()
        return self.open(self.reader.fingerprint) if store is None else store  # a new one needs the model's fingerprint

    def _existing(self) -> Store | None:
        """The open store, opened without the model; None where there is none."""
        store = self._store
        if store is None:
            with LOADING:
                if self._store is None:
                    with suppress(NoStoreError):
                        self._store = open_store(self.url, None)
                store = self._store
        return store

    def close(self) -> None:
        """
        Closes the store and lets go of the model. Used again, both come back; a memory store comes back empty.
        """
        if self._store is not None:
            self._store.close()
        self._store = self._reader = None

    def __enter__(self) -> Self:
        """
        Gives the store itself.
        """
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Closes the store.
        """
        self.close()


@dataclass(slots=True)
class _Beyond:
    """Documents that are left out because they are beyond the limits: how many, and what the first were."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, document: Document, refusal: LimitError) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(f"{document.id[:LONGEST_NAME]!r}: {refusal}")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Warns at the end, also of an error, where there are any."""
        try:
            yield
        finally:
            if self.count:
                logger.warning(
                    "{count} documents are beyond the limits of the token store and were left out; the others of "
                    "their batches were written. The first: {first}",
                    count=self.count,
                    first="; ".join(self.first),
                )


def _checked(documents: Iterable[Any]) -> Iterator[Document]:
    """Documents one by one, see `check_documents`."""
    for document in documents:
        yield from check_documents([document])


def _characters(document: Document) -> int:
    return len(document.content or "")
