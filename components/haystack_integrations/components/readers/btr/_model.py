# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What the components do with their model: load it, save and restore its settings, name it."""

import threading
from copy import deepcopy
from typing import Any, TypeVar

from haystack import default_from_dict, default_to_dict
from haystack.utils import ComponentDevice, Secret
from haystack.utils.hf import deserialize_hf_model_kwargs, serialize_hf_model_kwargs

from btr_haystack.default import DEFAULT_MODEL, DEFAULT_TEACHER, model_source
from btr_haystack.limits import Limits
from btr_haystack.reader import SplitReader

T = TypeVar("T")
R = TypeVar("R", bound=SplitReader)

HUB_TOKEN = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)
LOADING = threading.RLock()  # of the module, not of a component: that can be copied, a lock cannot


def load_reader(
    kind: type[R],
    model: str,
    *,
    device: ComponentDevice | None,
    token: Secret | None,
    model_kwargs: dict[str, Any] | None,
    max_seq_length: int,
    stride: int,
    bits: int | None,
    coded_share: float | None,
    merged_share: float = 0.0,
    limits: Limits,
) -> R:
    """
    Load a model onto its device.

    :param kind: class of the reader.
    :param model: a folder, a hub id, or the name of the model that comes with btr-haystack.
    :param device: None for the best one there is; "device_map" in `model_kwargs` goes before it.
    :param token: for private models of the hub.
    :param model_kwargs: for `from_pretrained`.
    :param max_seq_length: tokens of question and passage together.
    :param stride: tokens that neighbouring windows share.
    :param bits: how many of a code's first bits are kept; None for the model's own.
    :param coded_share: share of the tokens that keep bits; None for the model's own.
    :param merged_share: share of the tokens that are merged into others.
    :param limits: of the windows of a document.
    :returns: the reader.
    :raises FileNotFoundError: at a name that can only be a folder's, where there is none.
    """
    resolved = token.resolve_value() if token else None
    kwargs = dict(model_kwargs or {})
    if "torch_dtype" in kwargs:  # its older name
        kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
    if not kwargs.get("device_map"):
        kwargs["device_map"] = ComponentDevice.resolve_device(device).to_hf()
    return kind.from_pretrained(
        model_source(model), max_seq_length=max_seq_length, stride=stride, bits=bits, coded_share=coded_share,
        merged_share=merged_share, token=resolved, limits=limits, **kwargs,
    )  # fmt: skip


def settings_to_dict(component: object, model_kwargs: dict[str, Any] | None, **settings: Any) -> dict[str, Any]:
    """
    Save a component by Haystack's default function, dtypes among the model's arguments as text.

    :param component: the component.
    :param model_kwargs: left as they are.
    :param settings: its other arguments.
    """
    saved = deepcopy(model_kwargs)
    if saved:
        serialize_hf_model_kwargs(saved)
    return default_to_dict(component, model_kwargs=saved, **settings)


def settings_from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """
    Restore a component by Haystack's default function.

    :param cls: its class.
    :param data: of `settings_to_dict`; left as it is.
    """
    data = deepcopy(data)
    model_kwargs = data.get("init_parameters", {}).get("model_kwargs")
    if isinstance(model_kwargs, dict):  # else the constructor says what is wrong
        deserialize_hf_model_kwargs(model_kwargs)
    return default_from_dict(cls, data)


def telemetry_name(model: str) -> str:
    """
    Name a model that comes with this package, and no other: a name can tell what somebody works on.

    :param model: a name, a folder or a hub id.

    >>> telemetry_name("btr-flan-t5-small-squad"), telemetry_name("our-company/secret-project")
    ('btr-flan-t5-small-squad', 'custom')
    """
    return model if model in {DEFAULT_MODEL, DEFAULT_TEACHER} else "custom"
