# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What both readers are: a model and a token store, taken up once, from which the passages of documents are fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

from haystack import Document, logging
from haystack.utils import ComponentDevice, Secret

from btr_haystack.default import DEFAULT_MODEL
from btr_haystack.errors import ModelError
from btr_haystack.limits import Limits
from btr_haystack.passage import Passage
from btr_haystack.reader import SplitReader
from btr_haystack.stores import open_store
from haystack_integrations.components.readers.btr._checks import (
    check_device,
    check_flag,
    check_model_kwargs,
    check_same_windows,
)
from haystack_integrations.components.readers.btr._model import (
    HUB_TOKEN,
    LOADING,
    load_reader,
    settings_from_dict,
    telemetry_name,
)
from haystack_integrations.components.readers.btr._read_through import ReadThrough
from haystack_integrations.components.readers.btr.binary_token_store import BinaryTokenStore

R = TypeVar("R", bound=SplitReader)
logger = logging.getLogger(__name__)

OWN_STORE_BYTES = 256 << 20  # of a reader without a token store: some 100,000 passages of 150 tokens


@dataclass(frozen=True, slots=True)
class Reading(Generic[R]):
    """
    A warm reader.

    :param reader: the model.
    :param source: where its passages come from; None where it reads jointly.
    :param second: the model that reads the best documents again; None where there is none.
    """

    reader: R
    source: ReadThrough | None
    second: R | None = None

    def fetch(
        self, texts: Sequence[str], *, max_seq_length: int, stride: int, max_rows: int | None, progress_bar: bool
    ) -> tuple[R, list[Passage], int]:
        """
        Get the passages of some texts.

        :param texts: any strings.
        :param max_seq_length: tokens of question and passage together; other windows than the store's are encoded anew.
        :param stride: tokens that neighbouring windows share.
        :param max_rows: most windows encoded at the same time.
        :param progress_bar: whether to show one while encoding.
        :returns: the reader with these windows, a passage for each text, and for how many it came from the store.
        """
        reader = self.reader.changed(max_seq_length=max_seq_length, stride=stride)
        if reader is self.reader and self.source is not None:
            return reader, *self.source.fetch(texts, max_rows=max_rows, progress_bar=progress_bar)
        logger.warning(
            "Documents are kept with max_seq_length = {kept_length} and stride = {kept_stride}; for {length} and "
            "{stride} they are all encoded anew, and not kept.",
            kept_length=self.reader.max_seq_length,
            kept_stride=self.reader.stride,
            length=max_seq_length,
            stride=stride,
        )
        return reader, reader.encode(texts, max_rows=max_rows), 0


class StoreReader(Generic[R]):
    """
    What a reader's component shares with the other: its model and token store, loaded once and let go.

    A component calls `_set_model` in its constructor, and `_warm` before it reads.
    """

    _kind: type[R]
    _loaded: Reading[R] | None = None

    def _set_model(
        self,
        model: Path | str | None,
        device: ComponentDevice | None,
        token: Secret | None,
        model_kwargs: dict[str, Any] | None,
        max_seq_length: int,
        stride: int,
        token_store: BinaryTokenStore | None,
        int8: bool,
        limits: Limits | dict[str, int] | None,
    ) -> None:
        """
        Keep what the model is loaded with; what is not given is the token store's.

        :raises ValueError: where the token store has other windows.
        """
        if token_store is not None and not isinstance(token_store, BinaryTokenStore):
            msg = f"token_store is {token_store!r:.80}; expected a BinaryTokenStore, such as BinaryTokenStore(url=...)"
            raise TypeError(msg)
        check_flag(int8=int8)
        self.limits = token_store.limits if limits is None and token_store is not None else Limits.of(limits)
        check_same_windows(max_seq_length, stride, token_store)
        check_model_kwargs(model_kwargs)
        check_device(device, model_kwargs)
        if token_store is not None:
            model = model or token_store.model_name_or_path
            device = device or token_store.device
            token = token_store.token if token == HUB_TOKEN else token
            model_kwargs = token_store.model_kwargs if model_kwargs is None else model_kwargs
        self.model_name_or_path = str(model or DEFAULT_MODEL)
        self.device = device
        self.token = token
        self.model_kwargs = model_kwargs
        self.max_seq_length = max_seq_length
        self.stride = stride
        self.token_store = token_store
        self.int8 = int8

    def __getstate__(self) -> dict[str, Any]:
        """
        What a copy or a pickle takes along: the settings, and the token store.

        The model is loaded anew where the copy is used. What a reader without a token store has kept stays behind.
        """
        return {**self.__dict__, "_loaded": None}

    def _get_telemetry_data(self) -> dict[str, Any]:
        """
        Data that is sent to Posthog for usage analytics.
        """
        return {"model": telemetry_name(self.model_name_or_path)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
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
        Loads the model and opens the token store, once.

        :raises FileNotFoundError:
            If the model can only be a folder, and there is none.
        :raises ModelError:
            If the model is none that this component can read with, or reads jointly (k = 0) and there is a token
            store, which it could not use; if it is to compute in 8 bits, and does not lie on a CPU in float32.
        :raises FingerprintError:
            If the token store holds passages of another model.
        :raises StoreError:
            If the token store cannot be opened.
        """
        self._warm()

    def close(self) -> None:
        """
        Lets go of what was loaded and closes the token store. Used again, all come back.

        A token store in memory stays as it is, and its model with it: others may be reading it, and closing would empty
        it. What a reader without a token store has kept is gone.
        """
        if self.token_store is not None and not self.token_store.in_memory:
            self.token_store.close()
        self._loaded = None

    def _warm(self) -> Reading[R]:
        loaded = self._loaded
        if loaded is None:
            with LOADING:
                loaded = self._loaded = self._loaded or self._load()
        return loaded

    def _load(self) -> Reading[R]:
        """The model, and its token store opened; one in memory where none is given."""
        store = self.token_store
        reader = self._model(store)
        if store is not None:
            if reader.joint:
                msg = (
                    f"{self.model_name_or_path} reads question and passage jointly (k = 0) and cannot use a token "
                    "store. Choose a BTR model with k >= 1 and codes, or leave the token store out."
                )
                raise ModelError(msg)
            mine = self._computing(reader)  # before a store is made
            store.open(reader.fingerprint)
            opened = partial(store.open, reader.fingerprint)
            source = ReadThrough(reader, opened, keep_ids=store.keep_ids, write_back=store.write_back)
            return Reading(mine, source)
        if reader.joint:
            logger.warning(
                "{model} reads question and passage jointly (k = 0): nothing is kept of a passage.",
                model=self.model_name_or_path,
            )
            return Reading(self._computing(reader), None)
        own_store = open_store("memory://", reader.fingerprint)
        return Reading(self._computing(reader), ReadThrough(reader, lambda: own_store, most=OWN_STORE_BYTES))

    def _refuse_pruning(self, kept_share: float | None) -> None:
        """Raises where windows are to be dropped by a joint reader, which has no upper layers to do so after."""
        if kept_share is not None and kept_share < 1:
            msg = (
                f"kept_share is {kept_share}, but {self.model_name_or_path} reads question and passage "
                "jointly (k = 0) and prunes nothing; expected 1, or a BTR model"
            )
            raise ModelError(msg)

    def _computing(self, reader: R) -> R:
        """The reader that reads, where passages are encoded in full precision."""
        return reader.in_int8() if self.int8 else reader

    def _model(self, store: BinaryTokenStore | None) -> R:
        """The token store's model where it is the same, else one of its own."""
        if store is not None and self._kind is SplitReader:
            mine = (self.model_name_or_path, self.device, self.model_kwargs)
            if mine == (store.model_name_or_path, store.device, store.model_kwargs):
                return cast("R", store.reader.changed(limits=self.limits))
        return load_reader(
            self._kind,
            self.model_name_or_path,
            device=self.device,
            token=self.token,
            model_kwargs=self.model_kwargs,
            max_seq_length=self.max_seq_length,
            stride=self.stride,
            bits=store.bits if store is not None else None,
            coded_share=store.coded_share if store is not None else None,
            merged_share=store.merged_share if store is not None else 0.0,
            limits=self.limits,
        )


def check_request(limits: Limits, queries: Sequence[str], documents: Sequence[Document]) -> None:
    """
    Refuse a call that is beyond the limits, before any work.

    :param limits: of the component.
    :param queries: of the call.
    :param documents: of the call.
    :raises LimitError: where there are more, or more text in them.
    """
    characters = sum(map(len, queries)) + sum(len(document.content or "") for document in documents)
    limits.check_texts(len(documents), characters, len(queries))


def with_text(documents: list[Document]) -> list[Document]:
    """The documents that have text; those without are told of."""
    readable = [document for document in documents if document.content]
    if len(readable) < len(documents):
        logger.warning(
            "{count} of {total} documents have no text and are ignored.",
            count=len(documents) - len(readable),
            total=len(documents),
        )
    return readable
