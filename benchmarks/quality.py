"""Do the scores of a translation, made without its reference, tell how good it is? Correlations with sentence chrF.

    dual-fairseq score RUN/mle/checkpoint_best.pt -s de -t en --source SRC --target HYP --output scores.tsv
    python benchmarks/quality.py scores.tsv --hypothesis HYP --reference REF

Prints Pearson's r, Spearman's rho and Kendall's tau of every statistic with the chrF of the same sentence, and the chrF
of the half of the translations that the statistic likes better and of the other half. A positive correlation means that
better values go with better translations, whichever way the statistic points.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sacrebleu.metrics import CHRF
from scipy import stats

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.quiet import quieten_libraries
from dual_fairseq.common.tables import aligned
from dual_fairseq.pair.evaluate import read_lines
from dual_fairseq.pair.filter import STATISTICS, choose, read_scores


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="table of dual-fairseq score: source and translation")
    parser.add_argument("--hypothesis", type=Path, required=True, help="the translations, detokenised")
    parser.add_argument("--reference", type=Path, required=True, help="their references")
    options = parser.parse_args(arguments)
    quieten_libraries()

    columns = read_scores(options.scores)
    hypotheses, references = read_lines(options.hypothesis), read_lines(options.reference)
    if not len(hypotheses) == len(references) == len(columns["line"]):
        raise UserError(
            f"{options.scores}: {len(columns['line'])} pairs, {len(hypotheses)} translations and {len(references)} "
            "references: give the files that belong together"
        )
    metric = CHRF()
    pairs = list(zip(hypotheses, references, strict=True))
    chrf = np.array([metric.sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs])

    def corpus_chrf(chosen: np.ndarray) -> float:
        some = [pair for pair, is_chosen in zip(pairs, chosen, strict=True) if is_chosen]
        return metric.corpus_score([h for h, _ in some], [[r for _, r in some]]).score

    whole = corpus_chrf(np.ones(len(pairs), dtype=bool))
    print(f"{len(pairs)} translations, corpus chrF {whole:.2f}, mean of sentences {chrf.mean():.2f}")
    rows = [("statistic", "good is", "Pearson", "Spearman", "Kendall", "better half", "other half")]
    for name, statistic in STATISTICS.items():
        goodness = statistic.goodness(columns)
        known = ~np.isnan(goodness)
        if not known.any():
            continue
        correlations = (f(goodness[known], chrf[known])[0] for f in (stats.pearsonr, stats.spearmanr, stats.kendalltau))
        upper = choose(goodness, keep=0.5)
        halves = (corpus_chrf(upper), corpus_chrf(known & ~upper))
        rows.append(
            (
                name,
                "high" if statistic.higher_is_better else "low",
                *(f"{value:+.3f}" for value in correlations),
                *(f"{value:.2f}" for value in halves),
            )
        )
    print(aligned(rows))


if __name__ == "__main__":
    main()
