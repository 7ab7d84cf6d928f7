# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
What the bits of a token are worth: how many there are, and which tokens keep them.

One model reads the gold paragraphs of a sample with each setting: several numbers of bits and shares of tokens that
keep them (those whose state the token prior tells least of), and a stop list instead: the most frequent token ids of
the paragraphs, as many as make the same share of the tokens.

    python benchmarks/codes.py dev-v1.1.json.gz --sample 1000 --output results/codes.json
"""

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from btr_cli.benchmark import gold, machine, score
from btr_cli.figures import check_output
from btr_cli.pipelines import ANSWERS
from btr_cli.squad import drawn
from btr_cli.terminal import safe_output
from btr_haystack import SplitReader
from btr_haystack.default import model_source
from btr_haystack.squad import read_squad
from haystack_integrations.components.readers.btr import BinaryTokenStore, BTRReader

SHARES = (1.0, 0.75, 0.62, 0.54, 0.4, 0.25, 0.0)
STOPPED = (0.25, 0.38, 0.46, 0.6)  # shares of the tokens that the stop lists leave without bits


def main() -> None:
    """Print a line a setting; write the figures as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="btr-flan-t5-small-squad")
    parser.add_argument("--bits", type=int, nargs="+", default=[128, 112, 96, 64])
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--stopped", type=float, nargs="*", default=STOPPED)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    check_output(options.output)

    paragraphs = list(read_squad(options.data))
    random.Random(options.seed).shuffle(paragraphs)  # noqa: S311
    task = gold(drawn(paragraphs, options.sample, options.seed))
    documents = list({one.id: one for _, found in task for one in found}.values())
    source = model_source(options.model)
    if not Path(source).is_dir():
        parser.error(f"{source}: no such folder; stop lists are tried on copies of it")
    rows: list[dict[str, Any]] = []

    def measure(folder: str | Path, bits: int, share: float, label: str, **more: Any) -> None:
        url = "memory://"
        with BinaryTokenStore(str(folder), url, bits=bits, coded_share=share, progress_bar=False) as store:
            store.write_documents(documents)
            size = store.report()
            found = score(BTRReader(str(folder), token_store=store, **ANSWERS), task, label)
        coded = size.tokens_with_codes / size.tokens
        rows.append({"bits": bits, "coded_share": share, "coded": coded, **more, **found})
        print(f"{label}: {coded:.0%} of the tokens have bits, EM {found['em']:.1f}, F1 {found['f1']:.1f}", flush=True)
        if options.output:
            figures = {"machine": machine(), "data": options.data.name, "questions": len(task), "seed": options.seed}
            options.output.write_text(
                json.dumps({**figures, "model": options.model, "rows": rows}, indent=1) + "\n", encoding="utf-8"
            )

    for bits in options.bits:
        for share in options.shares:
            if share or bits == options.bits[0]:
                measure(source, bits, share, f"{bits} bits, {share:.0%}")
    counts = frequencies(source, [document.content or "" for document in documents])
    for share in options.stopped:
        listed = most_frequent(counts, share)
        with tempfile.TemporaryDirectory() as folder:
            stopping(source, Path(folder) / "model", listed)
            label = f"{options.bits[0]} bits, stop list of {len(listed)}"
            measure(Path(folder) / "model", options.bits[0], 1.0, label, stop_list=len(listed))


def frequencies(source: str, texts: list[str]) -> Counter[int]:
    """How often each token id stands in the texts."""
    documents = SplitReader.from_pretrained(source).tokens(texts)
    return Counter(token for document in documents for token in document.ids.tolist())


def most_frequent(counts: Counter[int], share: float) -> list[int]:
    """The most frequent ids, as many as make a share of the tokens."""
    listed, left = [], share * counts.total()
    for token, count in counts.most_common():
        if left <= 0:
            break
        listed.append(token)
        left -= count
    return listed


def stopping(source: str, folder: Path, listed: Iterable[int]) -> None:
    """A copy of a model whose listed token ids keep no bits."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"stop_tokens": sorted(listed)}), encoding="utf-8")


if __name__ == "__main__":
    with safe_output():
        main()
