# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
Time to read passages from an SQLite store, cold and warm, at several sizes; what encoding 3 billion tokens takes.

The records are synthetic: their lengths are those of the shipped Wikipedia passages, their ids and codes random, for
what a store costs depends on the number of bytes alone. They leave their ids to the text, as `BinaryTokenStore` has it;
tokenising, a tenth of a millisecond a passage, is not timed here. *Cold*: the store is opened anew and the operating
system has been asked to forget its file, so that every page comes from the disk. Medians over draws of random passages.

    python benchmarks/store.py --passages 10000 1000000 --output results/store.json
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from btr_cli.benchmark import machine
from btr_cli.corpus import shipped_documents
from btr_cli.figures import check_output
from btr_cli.terminal import safe_output, tracked
from btr_haystack import SplitReader, default_model_path
from btr_haystack.fingerprint import Fingerprint
from btr_haystack.passage import Passage, Tokens
from btr_haystack.record import pack, unpack
from btr_haystack.report import report
from btr_haystack.stores import open_store

COUNTS = (1, 10, 40, 100)
TOKENS = 3_000_000_000  # English Wikipedia, as the paper has it
KINDS = 2_000  # different records, under as many keys as there are passages


def main() -> None:
    """Print the figures; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where the stores are made; by default a temporary folder")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    check_output(options.output)

    reader = SplitReader.from_pretrained(default_model_path())
    lengths = [len(one.ids) for one in reader.tokens([document.content or "" for document in shipped_documents()])]
    figures: dict[str, Any] = {"machine": machine(), "bits": reader.bits, "coded_share": reader.coded_share}
    figures["stores"] = []
    kinds = passages(lengths, reader.bits, reader.coded_share)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in options.passages:
            figures["stores"].append(store_figures(Path(folder) / f"{count}.db", count, kinds, options.draws))
            print_store(figures["stores"][-1])
    figures["encoding"] = encoding(reader)
    rate, size = figures["encoding"]["tokens_a_second"], figures["stores"][-1]["bytes_a_token"]
    figures["wikipedia"] = {
        "tokens": TOKENS, "gigabytes": TOKENS * size / 1e9, "hours_on_this_machine": TOKENS / rate / 3600,
    }  # fmt: skip
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"encoding: {rate:,.0f} tokens a second; 3 billion tokens: {figures['wikipedia']}")


def passages(lengths: list[int], bits: int, share: float, seed: int = 0) -> list[Passage]:
    """Passages of real lengths with random ids and codes."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.choice(lengths, KINDS):
        ids = rng.integers(0, 32_000, length, dtype=np.int32)
        kept = rng.permutation(length) < share * length
        codes = rng.integers(0, 256, (int(kept.sum()), -(-bits // 8)), dtype=np.uint8)
        made.append(Passage(ids, np.array([[0, length]], np.int32), kept, codes))
    return made


def key(number: int) -> bytes:
    """A key that lies anywhere among the others, as those of real passages do."""
    return np.random.default_rng(number).bytes(16)


def store_figures(path: Path, count: int, kinds: list[Passage], draws: int) -> dict[str, Any]:
    """Make a store and measure it."""
    records = [pack(passage, keep_ids=False) for passage in kinds]
    mark, url = Fingerprint("0f" * 16, {"model": "synthetic", "width": 512}), f"sqlite:///{path}"

    def items() -> Iterator[tuple[bytes, bytes]]:
        for number in tracked(range(count), f"{count:,} passages"):
            yield key(number), records[number % KINDS]

    start = time.perf_counter()
    with open_store(url, mark) as store:
        store.put_many(items())
        written = time.perf_counter() - start
        size = report(store)
    times: dict[str, dict[int, float]] = {"cold": {}, "warm": {}}
    rng = np.random.default_rng(1)
    for wanted in COUNTS:
        cold: list[float] = []
        warm: list[float] = []
        for _ in range(draws):
            numbers = rng.integers(0, count, wanted).tolist()
            keys, drawn = [key(number) for number in numbers], [kinds[number % KINDS] for number in numbers]
            forget(path)
            with open_store(url, mark) as store:
                for seconds in (cold, warm):
                    start = time.perf_counter()
                    for record, passage in zip(store.get_many(keys), drawn, strict=True):
                        unpack(record or b"", Tokens(passage.ids, passage.windows))
                    seconds.append(time.perf_counter() - start)
        times["cold"][wanted], times["warm"][wanted] = 1e3 * statistics.median(cold), 1e3 * statistics.median(warm)
    return {
        "passages": count, "bytes_a_token": size.bytes_per_token, "megabytes": size.file_bytes / 1e6,
        "written_a_second": count / written, "milliseconds": times,
    }  # fmt: skip


def forget(path: Path) -> None:
    """Ask the operating system to drop the file from its memory, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def encoding(reader: SplitReader) -> dict[str, float]:
    """Tokens a second of encoding the shipped passages, the best of three: the machine is shared."""
    texts = [document.content or "" for document in shipped_documents()][:400]
    reader.encode(texts[:20])
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        tokens = sum(len(one.ids) for one in reader.encode(texts))
        rates.append(tokens / (time.perf_counter() - start))
    return {"tokens_a_second": max(rates), "median_tokens_a_second": statistics.median(rates)}


def print_store(row: dict[str, Any]) -> None:
    """Two lines a store."""
    print(f"{row['passages']:,} passages, {row['bytes_a_token']:.1f} bytes a token, {row['megabytes']:,.0f} MB")
    for kind, times in row["milliseconds"].items():
        print(f"  {kind}: " + ", ".join(f"{count} in {ms:.2f} ms" for count, ms in times.items()), flush=True)


if __name__ == "__main__":
    with safe_output():
        main()
