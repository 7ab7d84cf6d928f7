# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What a store's passages were encoded with."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from btr_haystack.display import shown
from btr_haystack.errors import StoreError

_INTEGER = 1 << 63


@dataclass(frozen=True)
class Fingerprint:
    """
    Names everything that decides the bits of a passage: weights, tokenizer, split layer, windows, compression.

    Two fingerprints are equal when their digests are; the description tells people what the digest stands for.

    >>> str(Fingerprint("0f" * 16, {"model": "btr-flan-t5-small-squad", "k": 5, "bits": 128}))
    'btr-flan-t5-small-squad (k=5, bits=128, digest=0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f)'

    :param digest: 32 hexadecimal digits, lower case.
    :param description: name, split layer, bits, width, window length and stride of the model, and what else helps.
    :raises StoreError: if the digest is not 32 hexadecimal digits.
    """

    digest: str
    description: Mapping[str, str | int | float] = field(compare=False)

    def __post_init__(self) -> None:
        """Refuses a digest that no model gives."""
        if not isinstance(self.digest, str) or not re.fullmatch("[0-9a-f]{32}", self.digest):
            msg = f"A fingerprint's digest is {_cut(self.digest)}, 32 hexadecimal digits (0-9, a-f) are expected."
            raise StoreError(msg)

    def __str__(self) -> str:
        """Gives one line for people, whoever wrote the description."""
        settings = dict(self.description)
        name = shown(str(settings.pop("model", "unnamed model")), 100)
        told = shown(", ".join(f"{key}={value}" for key, value in settings.items()))
        return f"{name} ({', '.join(filter(None, (told, f'digest={self.digest}')))})"

    def to_json(self) -> str:
        """
        Gives the text that a store keeps.

        :returns: a JSON object with `digest` and `description`.
        """
        return json.dumps({"digest": self.digest, "description": dict(self.description)})

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """
        Reads what `to_json` gave.

        :param text: a JSON object with `digest` and `description`.
        :returns: the fingerprint.
        :raises StoreError: if the text is something else.
        """
        try:
            fields = json.loads(text)
            digest, description = fields["digest"], dict(fields["description"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"A fingerprint is {_cut(text)}, a JSON object with `digest` and `description` is expected."
            raise StoreError(msg) from error
        for name, value in description.items():
            if not isinstance(value, str | int | float | None) or (isinstance(value, int) and abs(value) >= _INTEGER):
                msg = f"A fingerprint gives {_cut(value)} as {_cut(name)}, a text or a number is expected."
                raise StoreError(msg)
        return cls(digest, description)


def _cut(value: object) -> str:
    return shown(repr(value), 80)
