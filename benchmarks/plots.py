# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""
The pictures of the documents, drawn from the figures in results/.

    python benchmarks/plots.py
"""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
OURS, THEIRS, PALE = "#0b6e4f", "#c0392b", "#8a8f98"
STAGES = ("teacher", "decomposed", *(f"binarised-{number}" for number in (1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 16)))


def speed() -> None:
    """Milliseconds a question against passages, and bytes a token, both readers."""
    figures = json.loads((ROOT / "results" / "reading.json").read_text(encoding="utf-8"))
    rows = figures["rows"]
    passages = [row["passages"] for row in rows]
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=[3, 2], layout="constrained")
    left.plot(passages, [row["upstream_ms"] for row in rows], "o-", color=THEIRS, label="TransformersExtractiveReader")
    left.plot(passages, [row["btr_ms"] for row in rows], "o-", color=OURS, label="BTRReader")
    for row in rows:
        place = (row["passages"], row["btr_ms"])
        label = f"{row['times_faster']:.1f}x"
        left.annotate(label, place, xytext=(0, -14), textcoords="offset points", ha="center", color=OURS)
    left.set(xscale="log", yscale="log", xlabel="passages", ylabel="ms a question (whole run)")
    left.set_xticks(passages, [str(count) for count in passages])
    left.margins(y=0.2)
    left.legend(frameon=False)
    names = ["float32 states", "float16 states", "BTR, all counted"]
    sizes = [figures["float32_bytes_a_token"], figures["float16_bytes_a_token"], figures["bytes_a_token"]]
    right.barh(names[::-1], sizes[::-1], color=[OURS, PALE, PALE])
    for bar, size in enumerate(sizes[::-1]):
        right.annotate(
            f"{size:,.1f}" if size < 100 else f"{size:,.0f}", (size, bar), xytext=(4, -4), textcoords="offset points"
        )
    right.set(xscale="log", xlabel="bytes a token", xlim=(5, 12000))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    plt.savefig(ROOT / "docs" / "speed.png", dpi=160)
    plt.close()


def losses() -> None:
    """The span loss of the stages."""
    _, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.set_prop_cycle(color=[*map(mpl.colormaps["tab10"], range(10)), "black", OURS, THEIRS, "gold"])
    for stage in STAGES:
        history = json.loads((ROOT / "results" / "training" / f"{stage}.json").read_text(encoding="utf-8"))["history"]
        points = [(entry["step"], entry["loss_span"]) for entry in history if "loss_span" in entry]
        axes.plot(*zip(*points, strict=True), label=stage)
    axes.set(xlabel="step", ylabel="span loss (training)")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    plt.savefig(ROOT / "docs" / "loss.png", dpi=160)
    plt.close()


if __name__ == "__main__":
    speed()
    losses()
