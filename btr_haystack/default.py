# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The model that comes with the package."""

from pathlib import Path

from btr_haystack.errors import ModelError

DEFAULT_MODEL = "btr-flan-t5-small-squad"


def default_model_path() -> Path:
    """
    Tell where the model lies that comes with this package.

    >>> default_model_path().name
    'btr-flan-t5-small-squad'

    :returns: its folder.
    """
    return Path(__file__).parent / "models" / DEFAULT_MODEL


def model_source(model: str | Path) -> str:
    """
    Tell what to load for a model's name.

    >>> model_source("deepset/tinyroberta-squad2")
    'deepset/tinyroberta-squad2'

    :param model: a folder, a hub id, or the bare name of the model that comes with this package.
    :returns: a folder or a hub id.
    :raises ModelError: if this installation lacks the model that it should come with.
    """
    if str(model) != DEFAULT_MODEL:
        return str(model)
    folder = default_model_path()
    if not (folder / "config.json").is_file():
        msg = f"This installation of btr-haystack comes without its model {DEFAULT_MODEL}: {folder} lacks config.json."
        raise ModelError(msg)
    return str(folder)
