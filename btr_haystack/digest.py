# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""One number for all that decides a model's codes: what a store's fingerprint is made of."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from btr_haystack._transformers import CONFIG_NAME, cached_file
from btr_haystack.config import BTRConfig
from btr_haystack.int8 import WEIGHTS_FILE
from btr_haystack.model_files import ModelFiles

WRITING = ("encoder.decoder.", "encoder.lm_head.")  # of a generative reader: it shares its store with an extractive one


def digest_of_model(model: str) -> str:
    """
    Digest of a model's settings and weights, so that a model that was trained on, or set anew, is known apart.

    :param model: folder or hub id.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in (CONFIG_NAME, WEIGHTS_FILE):
        try:
            path = cached_file(model, name, _raise_exceptions_for_missing_entries=False)
        except OSError:
            path = None
        if path is not None:
            digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def digest_of_files(files: ModelFiles, config: BTRConfig, tokenizer: Any) -> str | None:
    """Digest of the weights as they lie in their file, whatever dtype they are loaded in; None for several files."""
    if len(files.weights) > 1:
        return None
    return digest_of_weights(files.tensors(lambda name: not name.startswith(WRITING)), config, tokenizer)


def digest_of_weights(weights: dict[str, Tensor], config: BTRConfig, tokenizer: Any) -> str:
    """Hash of all that decides codes and their decoding: lower layers, embeddings, binariser, tokenizer, settings."""
    digest = hashlib.blake2b(digest_size=16)
    name_of_layer = "block" if config.encoder.model_type == "t5" else "layer"  # T5's "layer" is a part of a block
    upper = tuple(f".{name_of_layer}.{i}." for i in range(config.k, config.encoder.num_hidden_layers))
    chooses = (
        f"encoder.encoder.block.{config.k}.layer.0.layer_norm.weight"  # T5: which tokens keep bits, see `importance`
    )
    for name in sorted(weights.keys() - {"encoder.encoder.embed_tokens.weight"}):  # T5 ties it to encoder.shared
        below = name.startswith(("encoder.", "binariser.")) and (
            name == chooses or not any(part in name for part in upper)
        )
        if below and not name.startswith(WRITING) and "final_layer_norm" not in name and "pooler" not in name:
            tensor = weights[name].detach().float().cpu().contiguous()  # whatever dtype it was loaded in
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.view(torch.uint8).numpy().data)
    settings = {
        name: getattr(config, name) for name in ("k", "bits", "code", "scale", "stop_tokens", "max_query_length")
    }
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    digest.update(json.dumps([settings, rules], sort_keys=True).encode())
    return digest.hexdigest()
