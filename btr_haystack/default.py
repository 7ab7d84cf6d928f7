# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The models that come with the package: a reader, and the teacher it learnt from."""

from pathlib import Path

from btr_haystack.errors import ModelError

DEFAULT_MODEL = "btr-flan-t5-small-squad"
DEFAULT_TEACHER = "flan-t5-small-squad"


def default_model_path() -> Path:
    """
    Tell where the BTR model lies that comes with this package.

    >>> default_model_path().name
    'btr-flan-t5-small-squad'

    :returns: its folder.
    """
    return Path(__file__).parent / "models" / DEFAULT_MODEL


def default_teacher_path() -> Path:
    """
    Tell where the ordinary reader lies that comes with this package: a teacher of the BTR model, and its second reader.

    >>> default_teacher_path().name
    'flan-t5-small-squad'

    :returns: its folder.
    """
    return Path(__file__).parent / "models" / DEFAULT_TEACHER


def model_source(model: str | Path) -> str:
    """
    Tell what to load for a model's name.

    >>> model_source("deepset/tinyroberta-squad2")
    'deepset/tinyroberta-squad2'

    :param model: a folder, a hub id, or the bare name of a model that comes with this package.
    :returns: a folder or a hub id.
    :raises FileNotFoundError: at what can only be a folder and is none; the hub's own message speaks of repositories.
    :raises ModelError: if this installation lacks a model that it should come with.
    """
    name = str(model)
    shipped = {DEFAULT_MODEL: default_model_path(), DEFAULT_TEACHER: default_teacher_path()}
    folder = shipped.get(name)
    if folder is None:
        if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():
            msg = f"{name}: no such folder"
            raise FileNotFoundError(msg)
        return name
    if not (folder / "config.json").is_file():
        msg = f"This installation of btr-haystack comes without its model {model}: {folder} lacks config.json."
        raise ModelError(msg)
    return str(folder)
