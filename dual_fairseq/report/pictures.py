"""The pictures of a report, each a PNG of its own, so that a page can arrange them for any width."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ..common.drawing import REPORT, look
from .gaps import PairScores
from .runs import System, arrow

STAGE_COLOURS = {"warmup": "#7d8590", "mle": "#d2691e", "dual": "#1f5fa8"}
# dual and MLE often coincide: a narrow dashed line on a broad pale one shows both
STAGE_LINES: dict[str, dict[str, Any]] = {
    "warmup": {"linestyle": "-", "linewidth": 1.3, "alpha": 0.8, "zorder": 2},
    "mle": {"linestyle": "--", "linewidth": 1.5, "alpha": 1.0, "zorder": 4},
    "dual": {"linestyle": "-", "linewidth": 3.6, "alpha": 0.55, "zorder": 3},
}
RUN_COLOURS = colormaps["tab10"].colors  # type: ignore[attr-defined]
UPDATES = "updates (stages go on from the best warm start)"


@dataclass
class Picture:
    """Args: title, which is also the alternative text; caption; the PNG file's bytes."""

    title: str
    caption: str
    png: bytes


@contextmanager
def _figure(size: tuple[float, float] = (6.2, 3.9)):
    with look(REPORT):
        yield Figure(figsize=size, layout="constrained").subplots()


def _png(axes: Any) -> bytes:
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _look(system: System, systems: Sequence[System]) -> dict[str, Any]:
    """The line style of a stage; colours distinguish stages, or runs if there are several."""
    runs = list(dict.fromkeys(s.run.name for s in systems))
    key = system.stage.key
    colour = STAGE_COLOURS[key] if len(runs) == 1 else RUN_COLOURS[runs.index(system.run.name) % len(RUN_COLOURS)]
    return {"color": colour, **STAGE_LINES[key]}


def draw_curves(
    axes: Any, systems: Sequence[System], key: str, limit: float | None = None, training: bool = False
) -> bool:
    """Draw a logged quantity over updates, and mark the end of each warm start.

    Args:
        axes: matplotlib's.
        systems: one line for each system that logged it.
        key: as logged, without the name of the split.
        limit: a value that is drawn as a dotted line.
        training: also draw the means of the training epochs, thin and dotted.

    Returns:
        Whether there was anything to draw.
    """
    lowest = []
    for system in systems:
        look = _look(system, systems)
        updates, values = system.stage.curve(key)
        if values:
            marker = {"marker": "o", "markersize": 4} if len(values) < 12 else {}
            axes.plot(updates, values, label=system.name, **look, **marker)
            lowest.append(min(values))
        if training:
            updates, values = system.stage.curve(key, "train")
            if values:
                thin = {**look, "linestyle": ":", "linewidth": 1.4, "alpha": 1.0}
                axes.plot(updates, values, label=f"{system.name}, in training", **thin)
                lowest.append(min(values))
    if not lowest:
        return False
    starts = {(s.run.name, s.stage.start): _look(s, systems)["color"] for s in systems if s.stage.start}
    for (_, start), colour in starts.items():
        single = len({run for run, _ in starts}) == 1
        axes.axvline(start, color="0.55" if single else colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if single and any(s.stage.key == "warmup" and s.stage.curve(key)[1] for s in systems):
            others = " / ".join(dict.fromkeys(s.stage.name for s in systems if s.stage.key != "warmup"))
            mark = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8, "color": "0.4"}
            axes.annotate("warm start ", (start, 1.0), (-3, 3), ha="right", **mark)
            axes.annotate(f" {others}", (start, 1.0), (3, 3), ha="left", **mark)
    if limit is not None:
        axes.axhline(limit, color="0.3", linestyle=":", linewidth=1.3)
        axes.annotate("limit: the truth's own", (0.01, limit), xycoords=("axes fraction", "data"), fontsize=8,
                      color="0.3", va="bottom")  # fmt: skip
    axes.set_xlabel(UPDATES)
    axes.grid(True)
    if key.startswith("nll"):  # the first epochs would flatten the rest
        axes.set_ylim(top=min(axes.get_ylim()[1], 2 * min(lowest) + 1))
    axes.legend(fontsize=8, framealpha=0.8)
    return True


def curves(systems: Sequence[System], directions: Sequence[str], limits: Mapping[str, float]) -> list[Picture]:
    """Validation NLL and BLEU, or the accuracy of labels or tags, of both directions over updates."""
    pictures = []
    for key, name, caption in (
        ("nll_loss", "Validation NLL", "Bits a target token, of the reference. Lower is better."),
        ("bleu", "Validation BLEU", "As validated in training, with its beam. Higher is better."),
        ("accuracy", "Validation accuracy", "Percent of the labels or tags that are right. Higher is better."),
    ):
        for direction in directions:
            with _figure() as axes:
                limit = limits.get(direction) if key == "nll_loss" else None
                if draw_curves(axes, systems, f"{key}_{direction}", limit):
                    axes.set_ylabel({"nll_loss": "bits a token", "bleu": "BLEU", "accuracy": "%"}[key])
                    pictures.append(Picture(f"{name}, {arrow(direction)}", caption, _png(axes)))
    return pictures


def gap_curves(systems: Sequence[System]) -> list[Picture]:
    """Mean \\|gap\\| and the share of negative weights over updates, if they were logged."""
    pictures = []
    for key, title, caption, label in (
        (
            "gap_abs",
            "Mean |gap|",
            "On the validation text (solid) and in training, each epoch's mean (dotted).",
            "nats",
        ),
        (
            "neg_weight",
            "Share of negative weights",
            "Sentence pairs with 2λ|gap| > 1, which train one of the models away from its reference.",
            "share of sentence pairs",
        ),
    ):
        with _figure() as axes:
            if draw_curves(axes, systems, key, training=True):
                axes.set_ylabel(label)
                axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 0.05))
                pictures.append(Picture(f"{title} over updates", caption, _png(axes)))
    return pictures


def scatters(scored: Mapping[str, tuple[System, PairScores]], systems: Sequence[System]) -> list[Picture]:
    """Both factorisations of log P(x, y) against each other, one picture per system, all with the same axes.

    Args:
        scored: the system's name → the system and its scores.
        systems: all systems of the report, for the colours.
    """
    values = [v for _, scores in scored.values() for v in (scores.forward, scores.reverse) if len(v)]
    if not values:
        return []
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    margin = 0.03 * (high - low) + 1
    pictures = []
    for name, (system, scores) in scored.items():
        if len(scores.gap) == 0:
            continue
        with _figure((4.6, 4.4)) as axes:
            axes.axline((low, low), slope=1, color="0.35", linewidth=0.9)
            colour = _look(system, systems)["color"]
            axes.scatter(scores.reverse, scores.forward, s=9, alpha=0.45, color=colour, linewidths=0, rasterized=True)
            axes.set_xlim(low - margin, high + margin)
            axes.set_ylim(low - margin, high + margin)
            axes.set_aspect("equal")
            axes.set_xlabel("log P(y) + log P(x|y), nats")
            axes.set_ylabel("log P(x) + log P(y|x), nats")
            axes.grid(True)
            caption = f"{len(scores.gap):,} pairs, mean |gap| {np.abs(scores.gap).mean():.2f} nats."
            pictures.append(Picture(f"log P(x, y) both ways, {name}", caption, _png(axes)))
    return pictures


def gap_histogram(scored: Mapping[str, tuple[System, PairScores]], systems: Sequence[System]) -> list[Picture]:
    """The distribution of the gaps of the scored pairs."""
    gaps = [scores.gap for _, scores in scored.values() if len(scores.gap)]
    if not gaps:
        return []
    low, high = np.percentile(np.concatenate(gaps), [0.5, 99.5])
    bins = np.linspace(min(low, -1.0), max(high, 1.0), 41)
    with _figure() as axes:
        axes.axvline(0, color="0.35", linewidth=0.9)
        for name, (system, scores) in scored.items():
            look = {key: value for key, value in _look(system, systems).items() if key != "zorder"}
            axes.hist(np.clip(scores.gap, bins[0], bins[-1]), bins=bins, histtype="step", label=name, **look)
        axes.set_xlabel("gap = [log P(x) + log P(y|x)] − [log P(y) + log P(x|y)], nats")
        axes.set_ylabel("sentence pairs")
        axes.grid(True)
        axes.legend(fontsize=8, framealpha=0.8)
        caption = "The outermost bars hold larger gaps too. Models that agree on P(x, y) have all gaps at 0."
        return [Picture("Distribution of the gap", caption, _png(axes))]
