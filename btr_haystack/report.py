# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What a store takes a token, with everything counted."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice

from btr_haystack.display import shown
from btr_haystack.errors import RecordError, StoreError
from btr_haystack.record import check, token_counts
from btr_haystack.stores import Store

_RECORDS_A_READ = 100
_COUNTED = (  # of each record
    "passages", "damaged", "tokens", "tokens_with_codes", "id_bytes", "mask_bytes", "code_bytes", "scale_bytes",
    "record_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class StoreReport:
    """
    The size of a store and of its parts, against float states of the same tokens.

    :param passages: records in the store, without those that are damaged.
    :param damaged: records that cannot be read, or have codes of other bits than the store's; their passages are
        encoded anew when they are read or written again. What only their texts could tell is not told here.
    :param tokens: tokens of the passages.
    :param tokens_with_codes: tokens that have a code.
    :param id_bytes: bytes of the token ids, or of the checksums of those left to the text.
    :param mask_bytes: bytes that tell which tokens have a code, and which were merged into others.
    :param code_bytes: bytes of the codes.
    :param scale_bytes: bytes of the scales.
    :param record_bytes: bytes of the records; headers, windows and checksums make the rest of them.
    :param file_bytes: bytes of the store; keys, index and the overhead of the file make the rest of them.
    :param bytes_per_token: `file_bytes` a token, 0 without tokens.
    :param float32_bytes_per_token: what the state of a token takes in float32.
    :param float16_bytes_per_token: what it takes in float16.
    """

    passages: int
    damaged: int
    tokens: int
    tokens_with_codes: int
    id_bytes: int
    mask_bytes: int
    code_bytes: int
    scale_bytes: int
    record_bytes: int
    file_bytes: int
    bytes_per_token: float
    float32_bytes_per_token: int
    float16_bytes_per_token: int

    def __str__(self) -> str:
        """Gives one line for people."""
        damaged = f" and {self.damaged:,} damaged" if self.damaged else ""
        return (
            f"{self.passages:,} passages{damaged}, {self.tokens:,} tokens, {self.file_bytes:,} bytes: "
            f"{self.bytes_per_token:.1f} bytes a token, everything counted "
            f"(float32 states: {self.float32_bytes_per_token:,}, float16: {self.float16_bytes_per_token:,})"
        )


def report(store: Store) -> StoreReport:
    """
    Reads a whole store and adds up what its parts take.

    >>> import numpy as np
    >>> from btr_haystack.fingerprint import Fingerprint
    >>> from btr_haystack.passage import Passage
    >>> from btr_haystack.record import pack, passage_key
    >>> from btr_haystack.stores import open_store
    >>> passage = Passage(
    ...     ids=np.array([71, 3, 9, 1], np.int32),
    ...     windows=np.array([[0, 4]], np.int32),
    ...     kept=np.array([True, False, True, False]),
    ...     codes=np.array([[0xA5, 0x0F], [0x3C, 0xF0]], np.uint8),
    ... )
    >>> store = open_store("memory://", Fingerprint("0f" * 16, {"model": "tiny", "width": 32}))
    >>> store.put_many([(passage_key("a tiny text"), pack(passage))])
    >>> print(report(store))
    1 passages, 4 tokens, 49 bytes: 12.2 bytes a token, everything counted (float32 states: 128, float16: 64)

    :param store: an open store whose fingerprint describes the `width` of the model's states.
    :returns: the sizes.
    :raises StoreError: if the store cannot be read, or its fingerprint gives no width.
    """
    width = store.fingerprint.description.get("width")
    if not isinstance(width, int):
        given = shown(repr(width), 80)
        msg = f"The fingerprint of the store gives {given} as the `width` of the states, a whole number is expected."
        raise StoreError(msg)
    bits = store.fingerprint.description.get("bits")
    code_bytes = -(-bits // 8) if isinstance(bits, int) else None
    total: Counter[str] = Counter()
    keys = store.keys()
    while chunk := list(islice(keys, _RECORDS_A_READ)):
        for record in store.get_many(chunk):
            if record is not None:  # else deleted meanwhile
                total.update(_sizes(record, code_bytes))
    file_bytes, tokens = store.file_bytes(), total["tokens"]
    return StoreReport(
        **{name: total[name] for name in _COUNTED},
        file_bytes=file_bytes,
        bytes_per_token=file_bytes / tokens if tokens else 0.0,
        float32_bytes_per_token=4 * width,
        float16_bytes_per_token=2 * width,
    )


def _sizes(record: bytes, code_bytes: int | None) -> dict[str, int]:
    """What a record adds to the report; `code_bytes` are those of a code, None where they are not known."""
    try:
        parts, (tokens, coded) = check(record), token_counts(record)
    except RecordError:
        return {"damaged": 1}
    if code_bytes is not None and parts.codes != coded * code_bytes:
        return {"damaged": 1}
    sizes = (1, 0, tokens, coded, parts.ids, parts.mask + parts.gone, parts.codes, parts.scales, len(record))
    return dict(zip(_COUNTED, sizes, strict=True))
