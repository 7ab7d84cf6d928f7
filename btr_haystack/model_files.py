# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
The files of a model, found once and checked before anything is made of them: a stranger may have made them.

Weights come out of safetensors files alone, nothing in a folder runs or is asked about, and what a file says of sizes
is held against what lies in the others. transformers is given settings, tensors and a folder, and looks for no weights.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from btr_haystack import int8
from btr_haystack._transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, cached_file
from btr_haystack.config import BTRConfig
from btr_haystack.errors import MissingFileError, ModelError, told_as_damage
from btr_haystack.families import SUPPORTED
from btr_haystack.generation_settings import check_generation
from btr_haystack.tokenizer_rules import check_added_tokens, check_tokenizer, check_tokenizer_config

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG, ADDED_TOKENS = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
TOKENIZER_FILES = (
    TOKENIZER, TOKENIZER_CONFIG, ADDED_TOKENS, "special_tokens_map.json", "vocab.txt", "vocab.json",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5", "flax_model.msgpack")
LARGEST_JSON = {CONFIG: 1 << 20, GENERATION: 1 << 20, INDEX: 1 << 24, TOKENIZER: 1 << 26, TOKENIZER_CONFIG: 1 << 22}
SHARD = re.compile(r"\w[\w.-]*\.safetensors")
PLACE = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*")

# The largest models of these families stay well below: XLM-RoBERTa-XXL is 4,096 wide, T5-11B has 65,536 in a block.
CEILINGS = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "embedding_size"), 8192),
    **dict.fromkeys(("intermediate_size", "d_ff", "hidden_dim"), 131_072),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "num_decoder_layers", "k"), 256),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads"), 512),
    **dict.fromkeys(("max_position_embeddings", "relative_attention_max_distance", "max_query_length"), 131_072),
    **dict.fromkeys(("relative_attention_num_buckets", "d_kv"), 4096),
    **dict.fromkeys(("bits", "stored_bits"), 65_536),
    "vocab_size": 4_000_000,
    "type_vocab_size": 256,
}
FROM_ZERO = ("k", "bits", "stored_bits", "type_vocab_size")
SHARES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "dropout", "attention_dropout",
    "dropout_rate", "qa_dropout", "coded_share", "kept_share",
)  # fmt: skip
# of a config.json; transformers reads some others, of which none is needed here
KEPT = frozenset((*CEILINGS, *SHARES)) | {
    "architectures", "dtype", "torch_dtype", "transformers_version", "is_encoder_decoder", "use_cache",
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "tie_word_embeddings",
    "initializer_range", "initializer_factor", "layer_norm_eps", "layer_norm_epsilon",
    "hidden_act", "activation", "feed_forward_proj", "dense_act_fn", "is_gated_act", "scale_decoder_outputs",
    "code", "scale", "stop_tokens", "word_match", "task",
}  # fmt: skip
REFUSED = {
    "auto_map": "code of the model's own",
    "quantization_config": "weights in a form that is not read here",
    "compression_config": "weights in a form that is not read here",
    "transformers_weights": "another file of weights",
    "per_layer_config": "layers that differ",
    "pruned_heads": "layers that differ",
    "fusion_config": "kernels",
    "kernel_config": "kernels",
    "distributed_config": "several machines",
    "configuration_files": "another file of settings",
    "_experts_implementation": "kernels",
}
ATTENTION = ("eager", "sdpa")
DTYPES = ("float16", "bfloat16", "float32", "float64")
ACTIVATIONS = frozenset(
    {
        "relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_10", "gelu_python", "gelu_pytorch_tanh", "quick_gelu",
        "silu", "swish", "mish", "tanh", "sigmoid", "linear",
    }
)  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModelFiles:
    """
    Where the files of a model lie.

    :param name: what the model was asked for by: a folder or a hub id.
    :param folder: where its files lie: that folder, or one of the hub's cache.
    :param where: of the hub: token, revision (the very commit), subfolder; None for a folder of one's own.
    """

    name: str
    folder: Path
    where: dict[str, Any] | None = field(default=None, repr=False)  # has a secret in it

    def file(self, name: str) -> Path | None:
        """
        Find a file, and fetch it from the hub if need be.

        :param name: of the file, without a folder.
        :returns: None where there is none. A link counts by its name: the hub's cache has links.
        """
        path = self.folder / name
        if self.where is not None and not path.is_file():
            try:
                cached_file(self.name, name, _raise_exceptions_for_missing_entries=False, **self.where)
            except OSError:
                return None
        return path if path.is_file() else None

    def json(self, name: str) -> Any:
        """
        Read a file of JSON.

        :param name: of the file.
        :returns: what it says; None where there is no such file.
        :raises ModelError: if it is no JSON, or larger than such a file is.
        """
        path = self.file(name)
        return None if path is None else _parsed(path, LARGEST_JSON.get(name, 1 << 22))

    @cached_property
    def config(self) -> PreTrainedConfig:
        """
        The model's settings, without those that nothing here needs.

        :raises ModelError: for a kind of model that is not read here, settings that ask for code or kernels, sizes
            beyond those of real models, and damage.
        """
        settings = self.json(CONFIG)
        if settings is None:
            msg = f"{self.name}: no {CONFIG} in {self.folder}; expected the folder of a model, which has a model_type"
            raise MissingFileError(msg)
        kind, fields = _checked(settings, self.folder / CONFIG)
        with told_as_damage(f"{self.folder / CONFIG} cannot be used"):
            config: PreTrainedConfig
            if kind == BTRConfig.model_type:
                inner, of_encoder = _checked(settings.get("encoder"), self.folder / CONFIG, inside=True)
                config = BTRConfig(encoder={"model_type": inner, **of_encoder}, **fields)
            else:
                config = AutoConfig.for_model(kind, **fields)
        config.name_or_path = self.name
        return config

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """
        The safetensors files that hold the model's weights.

        :raises MissingFileError: where there are none; pickles, which can run code, are not read.
        :raises ModelError: for an index that names other files than safetensors beside it, and for an adapter.
        """
        if self.file(ADAPTER) is not None:
            msg = (
                f"{self.name} is an adapter, or comes with one ({ADAPTER}): expected a whole model. Merge the adapter "
                "into its model (merge_and_unload of peft) and save that"
            )
            raise ModelError(msg)
        whole = self.file(int8.WEIGHTS_FILE)
        if whole is not None:
            return (whole,)
        index = self.json(INDEX)
        if index is None:
            raise MissingFileError(self._no_weights())
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not names:
            msg = f"{self.folder / INDEX}: expected an object with a weight_map, found {index!r:.60}"
            raise ModelError(msg)
        for shard in names.values():
            if not isinstance(shard, str) or not SHARD.fullmatch(shard):
                msg = (
                    f"{self.folder / INDEX} names {shard!r:.120}; expected names of files beside it that end in "
                    ".safetensors: others can run code"
                )
                raise ModelError(msg)
        found = {shard: self.file(shard) for shard in sorted(set(names.values()))}
        if missing := [shard for shard, path in found.items() if path is None]:
            msg = f"{self.name}: {missing[0]}, which {INDEX} names, is missing; fetch or save the model again"
            raise MissingFileError(msg)
        return tuple(path for path in found.values() if path is not None)

    def _no_weights(self) -> str:
        msg = f"{self.name}: neither {int8.WEIGHTS_FILE} nor {INDEX} in {self.folder}"
        if pickles := [name for name in PICKLES if self.file(name) is not None]:
            msg += (
                f", only {pickles[0]}, which is not read: such files can run code. Load the model where you trust it, "
                "and save it as safetensors (save_pretrained)"
            )
        return msg

    def shapes(self) -> dict[str, Shape]:
        """
        The shape of each weight, by the headers alone, which safetensors holds against the files' sizes.

        :raises ModelError: for a damaged file, and scales of 8-bit weights that do not fit them.
        """
        return {name: shape for path in self.weights for name, shape in int8.shapes(path).items()}

    def tensors(self, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
        """
        The weights, as floats where they are kept in 8 bits.

        :param wanted: by name; scales go with their weights.
        :raises ModelError: see `shapes`.
        """
        found: dict[str, Tensor] = {}
        for path in self.weights:
            names = [name for name in int8.shapes(path) if wanted(name)]
            packed = int8.is_shrunk(path)
            with safe_open(path, framework="pt") as file:
                scales = {name + int8.SCALE for name in names} & set(file.keys()) if packed else set()
                tensors = {name: file.get_tensor(name) for name in (*names, *scales)}
            found |= int8.whole(tensors) if packed else tensors
        return found

    def generation_config(self) -> GenerationConfig | None:
        """
        How the model writes if nothing else is said; None where it does not say.

        :raises ModelError: for settings beyond those that can be given at all, see `check_generation`.
        """
        fields = self.json(GENERATION)
        if fields is None:
            return None
        path = self.folder / GENERATION
        if not isinstance(fields, dict):
            msg = f"{path}: expected an object, found {fields!r:.60}"
            raise ModelError(msg)
        try:
            check_generation({"generation_config": fields})
        except ValueError as error:
            msg = f"{path}: {error}"
            raise ModelError(msg) from error
        with told_as_damage(f"{path} cannot be used"):
            config: GenerationConfig = GenerationConfig.from_pretrained(str(self.folder))
        return config

    def tokenizer(self) -> Any:
        """
        The model's tokenizer, where it is made of the parts that those of the families here have.

        :raises ModelError: for another one, for one with code or files of its own, and for a damaged one.
        """
        try:
            return self._tokenizer()
        except ModelError as error:
            msg = f"{self.name}: its tokenizer cannot be loaded: {error}"
            raise ModelError(msg) from error

    def _tokenizer(self) -> Any:
        for name in TOKENIZER_FILES:
            self.file(name)  # fetched, so that all are there
        settings, rules, added = (self.json(name) for name in (TOKENIZER_CONFIG, TOKENIZER, ADDED_TOKENS))
        if settings is not None:
            check_tokenizer_config(settings, TOKENIZER_CONFIG)
        if rules is not None:
            check_tokenizer(rules, TOKENIZER)
        if added is not None:
            check_added_tokens(added, ADDED_TOKENS)
        with told_as_damage("its files cannot be used", "Save it there anew."):
            tokenizer = AutoTokenizer.from_pretrained(str(self.folder), config=self.config, trust_remote_code=False)
            built = getattr(tokenizer, "backend_tokenizer", None)
            made = None if built is None else json.loads(built.to_str())
        if made is not None:
            check_tokenizer(made, "as built")  # other files of the folder, and its class, have their say as well
        return tokenizer


def model_files(name: str | Path | ModelFiles, **where: Any) -> ModelFiles:
    """
    Find where a model's files lie; those of a hub id are fetched when they are asked for, all of one commit.

    :param name: a folder or a hub id; files that were found stay as they are.
    :param where: `token`, `revision`, `cache_dir`, `local_files_only`, `subfolder`.
    :raises ValueError: for a revision or subfolder that leads elsewhere.
    :raises OSError: where there is no such model, or the hub cannot be reached.
    """
    if isinstance(name, ModelFiles):
        return name
    where = {key: value for key, value in where.items() if value is not None}
    for key in ("revision", "subfolder"):
        value = where.get(key) or "main"
        if not isinstance(value, str) or not PLACE.fullmatch(value) or ".." in value:
            msg = f"{key} is {value!r:.60}; expected a name, or names divided by /, without .."
            raise ValueError(msg)
    if Path(name).is_dir():
        return ModelFiles(str(name), Path(name) / where.get("subfolder", ""))
    config = Path(str(cached_file(str(name), CONFIG, **where)))
    parts = config.parts
    if "snapshots" in parts:
        where["revision"] = parts[len(parts) - parts[::-1].index("snapshots")]
    return ModelFiles(str(name), config.parent, where)


def config_of(name: str | Path) -> PreTrainedConfig:
    """
    Read a model's settings, see `ModelFiles.config`.

    :param name: a folder or a hub id.
    """
    return model_files(name).config


def tokenizer_of(name: str | Path) -> Any:
    """
    Load a model's tokenizer, see `ModelFiles.tokenizer`.

    :param name: a folder or a hub id.
    """
    return model_files(name).tokenizer()


def _parsed(path: Path, largest: int) -> Any:
    size = path.stat().st_size
    if size > largest:
        msg = f"{path}: {size:,} bytes; such a file has at most {largest:,}"
        raise ModelError(msg)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not JSON: {error}; fetch or save it again"
        raise ModelError(msg) from error


def _checked(settings: Any, path: Path, *, inside: bool = False) -> tuple[str, dict[str, Any]]:
    """The kind of model, and those of its settings that are kept."""
    if not isinstance(settings, dict):
        msg = f"{path}: expected an object{' as encoder' if inside else ''}, found {settings!r:.60}"
        raise ModelError(msg)
    kind, known = settings.get("model_type"), SUPPORTED if inside else (*SUPPORTED, BTRConfig.model_type)
    if not isinstance(kind, str) or kind not in known:
        msg = f"{path}: cannot split a model of type {kind!r:.60} (model_type); expected one of: {', '.join(known)}"
        raise ModelError(msg)
    for name, value in settings.items():
        if value is not None:
            _check_setting(name, value, path)
    return kind, {name: value for name, value in settings.items() if name in KEPT and value is not None}


def _check_setting(name: str, value: Any, path: Path) -> None:
    expected = None
    if name in REFUSED and value not in ({}, [], False):
        expected = f"nothing: it asks for {REFUSED[name]}"
    elif name in ("_attn_implementation", "attn_implementation") and value not in ATTENTION:
        expected = f"one of {', '.join(ATTENTION)}"
    elif name in CEILINGS and not (type(value) is int and (name not in FROM_ZERO) <= value <= CEILINGS[name]):
        expected = f"a whole number from {int(name not in FROM_ZERO)} to {CEILINGS[name]}"
    elif name in SHARES and not (type(value) in (int, float) and 0 <= value <= 1):
        expected = "a number from 0 to 1"
    elif name == "stop_tokens" and not (isinstance(value, list) and all(map(_is_id, value))):
        expected = "a list of token ids"
    elif name in ("dtype", "torch_dtype") and str(value).removeprefix("torch.") not in DTYPES:
        expected = f"one of {', '.join(DTYPES)}"
    elif name in ("hidden_act", "activation", "dense_act_fn", "feed_forward_proj"):
        if str(value).removeprefix("gated-") not in ACTIVATIONS:
            expected = f"one of {', '.join(sorted(ACTIVATIONS))}"
    if expected is not None:
        msg = f"{path}: {name} is {value!r:.120}; expected {expected}"
        raise ModelError(msg)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < CEILINGS["vocab_size"]


def numbers_in(shapes: dict[str, Shape]) -> int:
    """
    Count the numbers of all weights.

    :param shapes: of each weight.
    """
    return sum(map(math.prod, shapes.values()))
