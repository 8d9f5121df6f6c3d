"""Which statistic finds noise in parallel text? Spoils a share of a split's targets, scores it, prints the AUC of each.

    python benchmarks/noise.py RUN/mle/checkpoint_best.pt -s de -t en --split test --src-lm LM.de.pt --tgt-lm LM.en.pt

The AUC is the chance that a spoilt pair gets a worse value than a good one: 0.5 is guessing, 1 finds all. The noise:

    shuffle      targets change places among the spoilt lines (misaligned text)
    same length  likewise, but with a target of nearly the same length
    half         the second half of the target's tokens is missing
    word order   the target's tokens in random order
    copy         the source in place of the target (untranslated text)
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.quiet import quieten_libraries
from dual_fairseq.pair.evaluate import aligned
from dual_fairseq.pair.filter import STATISTICS
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.score import score_pairs
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.plugin.task import DualTranslationTask


def auc(goodness: np.ndarray, spoilt: np.ndarray) -> float:
    """The chance that a spoilt pair is less good than one that is not; ties count half (Mann and Whitney's U).

    Args:
        goodness: (N,) the larger the better.
        spoilt: (N,) bool, with both kinds in it.
    """
    _, inverse, counts = np.unique(goodness, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1, equals share their mean
    n_good, n_spoilt = int((~spoilt).sum()), int(spoilt.sum())
    return float((ranks[~spoilt].sum() - n_good * (n_good + 1) / 2) / (n_good * n_spoilt))


# --- noise: each takes the task, sources and targets of the lines to spoil, gives their new targets ------------------


def shuffle(
    task: DualTranslationTask, sources: list[Tensor], targets: list[Tensor], rng: random.Random
) -> list[Tensor]:
    """No line keeps its target: a random order, and every target moves on by one."""
    order = list(range(len(targets)))
    rng.shuffle(order)
    return _move_on(targets, order)


def same_length(
    task: DualTranslationTask, sources: list[Tensor], targets: list[Tensor], rng: random.Random
) -> list[Tensor]:
    order = sorted(range(len(targets)), key=lambda i: (len(targets[i]), rng.random()))
    return _move_on(targets, order)


def half(task: DualTranslationTask, sources: list[Tensor], targets: list[Tensor], rng: random.Random) -> list[Tensor]:
    return [torch.cat([target[: len(target) // 2], target[-1:]]) for target in targets]


def word_order(
    task: DualTranslationTask, sources: list[Tensor], targets: list[Tensor], rng: random.Random
) -> list[Tensor]:
    spoilt = []
    for target in targets:
        order = list(range(len(target) - 1))
        rng.shuffle(order)
        spoilt.append(target[[*order, len(target) - 1]])
    return spoilt


def copy(task: DualTranslationTask, sources: list[Tensor], targets: list[Tensor], rng: random.Random) -> list[Tensor]:
    return [
        task.target_dictionary.encode_line(task.source_dictionary.string(source), add_if_not_exist=False)
        for source in sources
    ]


def _move_on(targets: list[Tensor], order: list[int]) -> list[Tensor]:
    moved = list(targets)
    for here, there in zip(order, [*order[1:], order[0]], strict=True):
        moved[there] = targets[here]
    return moved


NOISE: dict[str, Callable[[DualTranslationTask, list[Tensor], list[Tensor], random.Random], list[Tensor]]] = {
    "shuffle": shuffle,
    "same length": same_length,
    "half": half,
    "word order": word_order,
    "copy": copy,
}


def columns_of(scores: dict[str, np.ndarray], sources: Sequence[Tensor], targets: Sequence[Tensor]):
    """What a statistic is computed from."""
    lengths = {"tokens_x": sources, "tokens_y": targets}
    return scores | {name: np.array([len(s) for s in side], dtype=float) for name, side in lengths.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a pair")
    parser.add_argument("-s", "--source-lang", required=True)
    parser.add_argument("-t", "--target-lang", required=True)
    parser.add_argument("--src-lm", required=True, help="language model of the source language")
    parser.add_argument("--tgt-lm", required=True, help="language model of the target language")
    parser.add_argument("--data", help="binarized data (default: as in training)")
    parser.add_argument("--split", default="test", help="default %(default)s")
    parser.add_argument("--share", type=float, default=0.2, help="of lines to spoil (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="draws to average over (default %(default)s)")
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args(arguments)
    quieten_libraries()

    device = "cpu" if options.cpu or not torch.cuda.is_available() else "cuda"
    pair, task = load_pair(options.checkpoint, options.data, options.source_lang, options.target_lang, device)
    lms = (
        load_language_model(options.src_lm, task.source_dictionary, options.source_lang, "--src-lm"),
        load_language_model(options.tgt_lm, task.target_dictionary, options.target_lang, "--tgt-lm"),
    )
    task.load_dataset(options.split)
    dataset = task.datasets[options.split]
    sources, targets = ([side[i] for i in range(len(dataset))] for side in (dataset.src, dataset.tgt))
    count = round(options.share * len(dataset))
    if not 2 <= count < len(dataset):
        raise UserError(f"--share {options.share}: spoils {count} of {len(dataset)} lines; at least 2, and not all")

    good = columns_of(score_pairs(pair, task, sources, targets, lms), sources, targets)
    areas: dict[str, dict[str, list[float]]] = {name: {noise: [] for noise in NOISE} for name in STATISTICS}
    for seed, noise in tqdm([(s, n) for s in range(options.seeds) for n in NOISE], mininterval=2, disable=None):
        rng = random.Random(seed)
        lines = sorted(rng.sample(range(len(dataset)), count))
        x = [sources[i] for i in lines]
        y = NOISE[noise](task, x, [targets[i] for i in lines], rng)
        # what happens to be as it was is not noise
        changed = [n for n, i in enumerate(lines) if not torch.equal(y[n], targets[i])]
        lines, x, y = [lines[n] for n in changed], [x[n] for n in changed], [y[n] for n in changed]
        columns = {name: values.copy() for name, values in good.items()}
        for name, values in columns_of(score_pairs(pair, task, x, y, lms), x, y).items():
            columns[name][lines] = values
        spoilt = np.zeros(len(dataset), dtype=bool)
        spoilt[lines] = True
        for name, statistic in STATISTICS.items():
            goodness = statistic.goodness(columns)
            known = ~np.isnan(goodness)
            areas[name][noise].append(auc(goodness[known], spoilt[known]))

    print(
        f"{options.split}: {count} of {len(dataset)} targets spoilt, AUC: mean (standard deviation) of {options.seeds}"
    )
    rows = [("statistic", "good is", *NOISE)]
    for name, statistic in STATISTICS.items():
        cells = (f"{np.mean(a):.3f} ({np.std(a):.3f})" for a in areas[name].values())
        rows.append((name, "high" if statistic.higher_is_better else "low", *cells))
    print(aligned(rows))


if __name__ == "__main__":
    main()
