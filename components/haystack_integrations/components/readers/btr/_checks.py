# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the components refuse, or warn of, before any work."""

import re
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any

import torch
from haystack import Document, logging
from haystack.utils import ComponentDevice

from btr_haystack.limits import Limits
from btr_haystack.model_files import ATTENTION, DTYPES, PLACE

logger = logging.getLogger(__name__)

DEVICE = re.compile(
    r"(?!(?:disk|meta)$)[a-z]{1,16}(:\d{1,4})?"
)  # weights that lie on no device, or are written to disk


def check_device(device: ComponentDevice | None, model_kwargs: dict[str, Any] | None) -> None:
    """
    Warn where a device is given twice.

    :param device: what the component was given.
    :param model_kwargs: what the component was given.
    """
    if device is not None and model_kwargs and model_kwargs.get("device_map"):
        logger.warning(
            "The parameters `device` and `device_map` from `model_kwargs` are both provided. "
            "Ignoring `device` and using `device_map`."
        )


def check_model_kwargs(model_kwargs: Any) -> None:
    """
    Refuse arguments for `from_pretrained` that are not known: they could run code, or load other files.

    :param model_kwargs: what the component was given.
    :raises TypeError: where they are no dictionary.
    :raises ValueError: at the first that is refused, naming it.
    """
    if model_kwargs is None:
        return
    if not isinstance(model_kwargs, dict):
        msg = f"model_kwargs is {model_kwargs!r:.60}; expected a dictionary of arguments for from_pretrained"
        raise TypeError(msg)
    for name, value in model_kwargs.items():
        if "token" in str(name):
            msg = f"model_kwargs has {name!r:.60}, which would be saved with the component: use the parameter token"
            raise ValueError(msg)
        if name not in MODEL_KWARGS:
            known = ", ".join(MODEL_KWARGS)
            msg = f"model_kwargs has {name!r:.60} = {value!r:.60}, which is not taken; expected some of: {known}"
            raise ValueError(msg)
        good, expected = MODEL_KWARGS[name]
        if value is not None and not good(value):
            msg = f"model_kwargs has {name} = {value!r:.60}; expected {expected}"
            raise ValueError(msg)


def _is_dtype(value: Any) -> bool:
    return str(value).removeprefix("torch.") in (*DTYPES, "auto") and isinstance(value, str | torch.dtype)


def _is_device_map(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(part, str) and _is_device(device) for part, device in value.items())
    return _is_device(value) or value in ("auto", "balanced", "balanced_low_0", "sequential")


def _is_device(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    if isinstance(value, str):
        return DEVICE.fullmatch(value) is not None
    return isinstance(value, torch.device)


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and (value == "" or PLACE.fullmatch(value) is not None) and ".." not in value


MODEL_KWARGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": (_is_dtype, f"one of {', '.join(DTYPES)}, or 'auto'"),
    "torch_dtype": (_is_dtype, f"one of {', '.join(DTYPES)}, or 'auto'"),
    "device_map": (_is_device_map, "a device such as 'cpu' or 'cuda:0', 'auto', or a dictionary of devices"),
    "revision": (_is_place, "the name of a branch or tag, or a commit"),
    "subfolder": (_is_place, "a folder inside of the model's, without .."),
    "attn_implementation": (lambda value: value in ATTENTION, " or ".join(map(repr, ATTENTION))),
    "local_files_only": (lambda value: isinstance(value, bool), "True or False"),
}


def check_documents(documents: Iterable[Any]) -> list[Document]:
    """
    Let Documents through.

    :param documents: what a caller gave.
    :returns: the same, as a list.
    :raises TypeError: at something else, and at a Document whose content is no text.
    """
    check_stream(documents)
    checked = list(documents)
    for document in checked:
        if not isinstance(document, Document):
            msg = f"expected Documents, not {type(document).__name__}: {str(document)[:60]!r}"
            raise TypeError(msg)
        if not isinstance(document.content, str | None):
            msg = f"a Document's content is {document.content!r:.60}; expected text, or None"
            raise TypeError(msg)
    return checked


def check_stream(documents: Any) -> None:
    """
    Refuse what cannot give one Document after another.

    :param documents: what a caller gave.
    :raises TypeError: at something else.
    """
    if isinstance(documents, Document):
        msg = "expected a list of Documents, not a single one"
        raise TypeError(msg)
    if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        msg = f"expected a list of Documents, not {type(documents).__name__}: {str(documents)[:60]!r}"
        raise TypeError(msg)


def check_queries(queries: Iterable[Any]) -> list[str]:
    """
    Let queries through.

    :param queries: what a caller gave.
    :returns: the same, as a list.
    :raises TypeError: at something else.
    """
    if isinstance(queries, str):
        msg = "expected a list of queries, not a single one"
        raise TypeError(msg)
    if not isinstance(queries, Iterable):
        msg = f"expected a list of queries, not {type(queries).__name__}: {str(queries)[:60]!r}"
        raise TypeError(msg)
    checked = list(queries)
    for query in checked:
        if not isinstance(query, str):
            msg = f"the query must be a string, not {type(query).__name__}: {str(query)[:60]!r}"
            raise TypeError(msg)
    return checked


def check_windows(max_seq_length: int, stride: int, limits: Limits) -> None:
    """
    Refuse windows that no model can have.

    :param max_seq_length: tokens of question and passage together.
    :param stride: tokens that neighbouring windows share.
    :param limits: of the component.
    :raises ValueError: where a window would hold no token, or not more than the stride, or more than the limits allow.
    """
    check_at_least(0, optional=False, max_seq_length=max_seq_length, stride=stride)
    if max_seq_length < 1 or not 0 <= stride < max_seq_length:
        msg = (
            f"max_seq_length is {max_seq_length} and stride is {stride}; expected a length of 1 or more, "
            "and a stride from 0 to less than the length"
        )
        raise ValueError(msg)
    limits.check("sequence_length", max_seq_length, "max_seq_length")


def check_same_windows(max_seq_length: int, stride: int, store: Any) -> None:
    """
    Refuse a reader whose windows are not its store's.

    :param max_seq_length: the reader's.
    :param stride: the reader's.
    :param store: a BinaryTokenStore, or None.
    :raises ValueError: where they differ.
    """
    if store is not None and (store.max_seq_length, store.stride) != (max_seq_length, stride):
        msg = (
            f"The reader has max_seq_length = {max_seq_length} and stride = {stride}, its token store "
            f"{store.max_seq_length} and {store.stride}. Give both the same: documents are split when "
            "they are encoded."
        )
        raise ValueError(msg)


def first_given(*values: Any) -> Any:
    """The first value that is not None; None where all are."""
    return next((value for value in values if value is not None), None)


def check_flag(**flags: Any) -> None:
    """
    Refuse what is neither true nor false; "no" would count as true.

    :param flags: by the names of their parameters.
    :raises TypeError: at the first that is no bool.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            msg = f"{name} is {flag!r}; expected True or False"
            raise TypeError(msg)


def check_share(most: float = 1, *, optional: bool = True, **shares: float | None) -> None:
    """
    Refuse what is no share of a whole.

    :param most: the largest that is allowed.
    :param optional: let None pass.
    :param shares: numbers by the names of their parameters.
    :raises TypeError: at the first that is no number.
    :raises ValueError: at the first that is below 0 or above `most`.
    """
    for name, share in shares.items():
        if share is None and optional:
            continue
        if share is None or isinstance(share, bool) or not isinstance(share, int | float):
            msg = f"{name} is {share!r}; expected a share from 0 to {most}"
            raise TypeError(msg)
        if not 0 <= share <= most:
            msg = f"{name} is {share}; expected a share from 0 to {most}"
            raise ValueError(msg)


def check_kept_share(share: Any) -> None:
    """
    Refuse a share of the windows that leaves none, or no share.

    :param share: what a caller gave; None for the model's own.
    :raises ValueError: at something else than a share above 0 and up to 1.
    """
    if share is None:
        return
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        msg = f"kept_share is {share!r}; expected a share above 0 and up to 1"
        raise ValueError(msg)


def check_at_least(least: int, kind: type | UnionType = int, *, optional: bool = True, **values: float | None) -> None:
    """
    Refuse numbers that are too small.

    :param least: the smallest that is allowed.
    :param kind: what numbers they are: whole ones, or `int | float`.
    :param optional: let None pass.
    :param values: numbers by the names of their parameters.
    :raises TypeError: at the first that is no number.
    :raises ValueError: at the first that is too small.
    """
    for name, value in values.items():
        if value is None and optional:
            continue
        if value is None or isinstance(value, bool) or not isinstance(value, kind):
            expected = "a whole number" if kind is int else "a number"
            msg = f"{name} is {value!r}; expected {expected}, {least} or more"
            raise TypeError(msg)
        if not value >= least:  # nor NaN
            msg = f"{name} is {value}; expected {least} or more"
            raise ValueError(msg)
