"""Whether a difference in scores is larger than the choice of test sentences explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast
from unittest.mock import patch

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest, Result

TRIALS = 10_000


def paired_test(
    baseline: tuple[str, Sequence[str]],
    others: Sequence[tuple[str, Sequence[str]]],
    references: Sequence[str],
    metrics: Mapping[str, Metric],
    trials: int = TRIALS,
    interval_samples: int = 0,
) -> dict[str, dict[str, Result]]:
    """sacreBLEU's paired approximate randomisation of systems against a baseline, two-sided (Riezler and Maxwell 2005).

    sacreBLEU's paired bootstrap is not used: it takes absolute values of resampled differences before it centres them.
    At 0.05, it calls one in ten pairs of equally good systems different. Exchanges with the same difference as that
    of the systems count, too: there are many with accuracy, and with few different sentences.

    Args:
        baseline, others: name and N translations each.
        references: N references.
        metrics: sacreBLEU metrics.
        trials: how many randomisations.
        interval_samples: bootstrap samples for the mean and 95 % interval of each score; 0 omits them.

    Returns:
        System → metric (sacreBLEU's name, such as ``BLEU`` or ``chrF2``) → result: score, ``p_value`` (None for the
        baseline) and, with ``interval_samples``, ``mean`` and ``ci``, half of the interval's width.
    """
    systems = [baseline, *others]
    test = PairedTest(systems, metrics, [references], "ar", n_samples=trials, n_ar_confidence=interval_samples or -1)
    with patch("sacrebleu.significance._compute_p_value", _p_value):  # sacreBLEU's counts larger differences only
        _, results = test()
    return {
        name: {metric: cast(Result, row[index]) for metric, row in results.items() if metric != "System"}
        for index, (name, _) in enumerate(systems)
    }


def _p_value(differences: np.ndarray, observed: float) -> float:
    """The share of exchanges with at least the observed difference, which is one of them."""
    return (int(np.count_nonzero(differences >= observed - 1e-9)) + 1) / (len(differences) + 1)
