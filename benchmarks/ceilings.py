# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
What a request costs that asks for as much as the ceilings let it, beside an honest one.

Each request runs in a process of its own, with a model that is warm: seconds for 1,000 tokens that are read, how many
times those of the honest request that is, and memory at the peak above that of the idle reader.

    python benchmarks/ceilings.py [--share 0.1] [--only NAME ...]

`--share` takes only so much of the text, for time grows with it; the ceilings of windows, answers and lengths are
reached all the same.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from haystack import Document

from btr_haystack.limits import Limits

QUERY = "Which river leaves the lake in the middle of the town?"
SENTENCE = "The river Limmat leaves Lake Zurich in the middle of the town; it flows past {} old mills. "
LIMITS = Limits()


def prose(characters: int, first: int = 0) -> str:
    """Sentences that differ."""
    number = -(-characters // (len(SENTENCE) + 2))
    return "".join(SENTENCE.format(first + i) for i in range(number + 1))[:characters]


def documents(count: int, characters: int) -> list[Document]:
    """So many Documents of so many characters each."""
    return [Document(content=prose(characters, 1000 * number)) for number in range(count)]


def requests(share: float) -> dict[str, dict[str, Any]]:
    """Arguments of `run`, and of the constructor, by the name of what is at its ceiling."""
    whole = int(LIMITS.characters * share)
    split = documents(10, 4000)
    return {
        "honest": {"documents": documents(40, 700)},
        "documents": {"documents": documents(LIMITS.documents, whole // LIMITS.documents - 1)},
        "characters of one Document": {"documents": documents(1, whole - 100)},
        "tokens of one letter": {"documents": [Document(content="a b " * (whole // 4 - 100))]},
        "stride": {"documents": split, "stride": 248},
        "sequence_length": {"documents": documents(1, 40_000), "max_seq_length": LIMITS.sequence_length},
        "answers": {
            "documents": split, "top_k": LIMITS.answers, "answers_per_seq": LIMITS.answers, "overlap_threshold": 1.0,
        },
        "batch size": {"documents": split, "max_batch_size": 10**9},
        "query": {"documents": split, "query": prose(whole - 50_000)},
    }  # fmt: skip


def memory() -> int:
    """Bytes at the peak of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, share: float) -> dict[str, float]:
    """Run one request in this process; the reader has answered a small one before."""
    from haystack_integrations.components.readers.btr import BTRReader

    reader = BTRReader()
    reader.run(QUERY, documents(2, 700))
    request = {"query": QUERY, **requests(share)[name]}
    idle, began = memory(), time.perf_counter()
    reader.run(**request)
    seconds = time.perf_counter() - began
    loaded = reader._loaded
    assert loaded is not None  # noqa: S101
    settings = {key: request[key] for key in ("max_seq_length", "stride") if key in request}
    texts = [document.content for document in request["documents"]]
    read = sum(len(one.ids) for one in loaded.reader.changed(**settings).tokens(texts))
    return {"tokens": read, "seconds": seconds, "memory": memory() - idle}


def main() -> None:
    """Measure each request, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the ceiling of characters")
    parser.add_argument("--only", nargs="*", help="names of requests")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.share)))
        return
    names = [name for name in requests(given.share) if name == "honest" or not given.only or name in given.only]
    honest = None
    print(f"{'at its ceiling':<28}{'tokens':>10}{'seconds':>10}{'ms a 1,000':>12}{'ratio':>8}{'MB above idle':>15}")
    for name in names:
        command = [sys.executable, __file__, "--measure", name, "--share", str(given.share)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
        each = 1e6 * found["seconds"] / found["tokens"]
        honest = honest or each
        print(
            f"{name:<28}{found['tokens']:>10,}{found['seconds']:>10.1f}{each:>12.0f}{each / honest:>8.2f}"
            f"{found['memory'] / 1e6:>15.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
