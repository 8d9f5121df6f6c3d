"""Tune the weights of dual inference on saved n-best lists of the validation text.

    fairseq-generate ... --gen-subset valid --remove-bpe --nbest 5 --dual-inference-alpha 1 > nbest.txt
    dual-fairseq tune nbest.txt --reference valid.en -t en -o tuned

No model runs: the list holds the components of every translation. The command prints BLEU, chrF and length ratio (for
labels and tags, accuracy) by α. It finds the best α and the best weights of the general form, and writes
tuned/weights.json, tuned/alpha.tsv and tuned/tuning.png. --lenpen is the length penalty of plain generation and of the
α form; the general form has a length weight instead. dual-fairseq evaluate --dual-inference does all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from ..common.arguments import Parser
from ..common.bleu import bleu_counts, bleu_metric, bleu_of_counts, missing_tokenizer, name_of, signature_of
from ..common.drawing import look
from ..common.errors import UserError
from ..common.files import check_output, read_lines, whole_file, write_json, write_text
from ..common.options import add_dest, add_languages, add_lenpen, add_output, add_sacrebleu_tokenize, add_split
from ..common.progress import Progress
from ..common.tables import aligned
from ..data.tokenizer import detokenize
from ..plugin.ranking import Weights
from .nbest import NBest, best_of, read_nbest

ALPHAS = np.linspace(0, 1, 21)
# The general form is searched on a coarse grid, then on a finer grid around its best point. This point must lie on
# a plateau, not on a spike. (from, to, step) of the weights of log P(x|y), log P(y) and |y| (nats per token):
GRID = {"reverse": (0.0, 3.0, 0.2), "lm": (0.0, 2.4, 0.2), "length": (-1.0, 6.0, 0.5)}
FINER = 4
FORMS = ("plain", "alpha", "general")
# Score of a form → its name and digits in a table. Labels and tags have only the accuracy.
COLUMNS = {"accuracy": ("accuracy %", 2), "bleu": ("BLEU", 2), "chrf": ("chrF", 2), "length_ratio": ("length ratio", 3)}
LENPENS = np.linspace(0, 3, 31).round(1)


def detokenize_all(texts: Sequence[Sequence[str]], undo: Callable[[list[str]], list[str]]) -> list[list[str]]:
    """All translations, detokenised together by ``undo``."""
    flat = iter(undo([text for translations in texts for text in translations]))
    return [[next(flat) for _ in translations] for translations in texts]


class CorpusBleu:
    """Corpus BLEU of any choice of one translation per sentence; the counts are made once.

    Args:
        texts, references: for each of N sentences, up to K translations and the reference.
        metric: BLEU of sacreBLEU.
    """

    def __init__(self, texts: Sequence[Sequence[str]], references: Sequence[str], metric: BLEU) -> None:
        width = max(map(len, texts), default=0) or 1
        self.counts = np.zeros((len(texts), width, 2 * metric.max_ngram_order + 2), dtype=np.int64)
        for row, translations, reference in zip(self.counts, texts, references, strict=True):
            for k, text in enumerate(translations or [""]):
                row[k] = bleu_counts(metric.corpus_score([text], [[reference]]))

    def score(self, chosen: np.ndarray) -> float:
        """(N,) which translation of each sentence is chosen → BLEU, 0 to 100."""
        return bleu_of_counts(self._counts_of(chosen).sum(axis=0).tolist())

    def resampled(self, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """(N,) choices, (R, N) how often each sentence is drawn → (R,) BLEU."""
        return np.array([bleu_of_counts(counts) for counts in (draws @ self._counts_of(chosen)).tolist()])

    def _counts_of(self, chosen: np.ndarray) -> np.ndarray:
        return self.counts[np.arange(len(chosen)), chosen]


def tune_lenpen(nbest: NBest, bleu: CorpusBleu, lenpen: float) -> float:
    """The length penalty for plain generation that is nearest to ``lenpen`` and as good as the best.

    A length penalty is as good as the best if its BLEU is lower by at most one standard error of the difference
    (bootstrap over sentences; the rule of one standard error of Breiman et al. 1984, §3.4.3). BLEU often changes little
    with the length penalty; its maximum is then extreme and specific to the validation text.
    """
    count = len(nbest.texts)
    draws = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), 200)
    candidates = sorted({lenpen, *LENPENS.tolist()}, key=lambda x: (abs(x - lenpen), x))
    chosen = [Weights().score(nbest.components, x).argmax(axis=1) for x in candidates]
    scores = [bleu.score(c) for c in chosen]
    best = max(range(len(candidates)), key=lambda i: (scores[i], -candidates[i]))
    best_scores = bleu.resampled(chosen[best], draws)
    return next(  # the best one always qualifies
        candidate
        for candidate, c, score in zip(candidates, chosen, scores, strict=True)
        if scores[best] - score <= np.std(best_scores - bleu.resampled(c, draws))
    )


def grid_search(nbest: NBest, bleu: CorpusBleu) -> Weights:
    """The weights of the general form (lenpen 0) in the middle of the best plateau of BLEU.

    The score of every grid point is replaced by the mean of this point and its neighbours, because a single peak among
    lower points is specific to the validation text. If the translations of each sentence have the same length
    (labels, tags), the length weight is 0.
    """
    lengths = nbest.components[..., -1]
    varied = (np.abs(lengths - lengths[:, :1]) > 0).any()
    free = [name for name in GRID if name != "length" or varied]
    axes = {}
    for name in free:
        low, high, step = GRID[name]
        axes[name] = np.arange(low, high + step / 2, step)
    best = _best_point(nbest, bleu, axes)
    for name, centre in best.items():
        low, high, step = GRID[name]
        axis = centre + np.linspace(-step, step, 2 * FINER + 1)
        axes[name] = axis[(axis > low - 1e-9) & (axis < high + 1e-9)]
    return Weights(1.0, **{name: round(value, 4) for name, value in _best_point(nbest, bleu, axes).items()})


def _best_point(nbest: NBest, bleu: CorpusBleu, axes: Mapping[str, np.ndarray]) -> dict[str, float]:
    surface = np.empty([len(axis) for axis in axes.values()])
    with Progress("tune", surface.size, "points of the grid") as progress:
        for index in np.ndindex(*surface.shape):
            weights = Weights(1.0, **{name: axis[i] for (name, axis), i in zip(axes.items(), index, strict=True)})
            surface[index] = bleu.score(best_of(nbest.components, weights, 0.0))
            progress.update(1)
    best = np.unravel_index(_smooth(surface).argmax(), surface.shape)
    return {name: float(axis[i]) for (name, axis), i in zip(axes.items(), best, strict=True)}


def _smooth(surface: np.ndarray) -> np.ndarray:
    """The mean of every point and its neighbours in all directions, without points beyond the edge."""
    total, count = np.pad(surface, 1), np.pad(np.ones_like(surface), 1)
    for axis in range(surface.ndim):
        total, count = (a + np.roll(a, 1, axis) + np.roll(a, -1, axis) for a in (total, count))
    inner = (slice(1, -1),) * surface.ndim
    return (total / np.maximum(count, 1))[inner]


def tune(nbest: NBest, references: Sequence[str], language: str, lenpen: float, metric: BLEU) -> dict[str, Any]:
    """Scores for each α and for the best weights of the general form.

    Args:
        nbest, references: of the validation text.
        language: the target language.
        lenpen: length penalty of plain generation and of the α form. The general form has length penalty 0, because
            it has a length weight.
        metric: see :func:`~dual_fairseq.common.bleu.bleu_metric`.

    Returns:
        The content of weights.json: for each of :data:`FORMS` the weights, lenpen, and BLEU, chrF and length ratio, or
        the accuracy; ``lenpen``, plain generation with a tuned length penalty (:func:`tune_lenpen`); the best form; the
        target language; the signature of BLEU; and ``by_alpha``, the same scores for every α. Without a language model
        of the source, the α form is missing.

    Raises:
        UserError: log P(y|x) is the only component in the list.
    """
    bleu, key = CorpusBleu(nbest.texts, references, metric), name_of(metric)
    chrf = CHRF()

    def row(weights: Weights, lenpen: float, chosen: np.ndarray | None = None) -> dict[str, Any]:
        hypotheses = nbest.take(best_of(nbest.components, weights, lenpen) if chosen is None else chosen)
        score = metric.corpus_score(hypotheses, [references])
        scores = {"weights": asdict(weights), "lenpen": lenpen, key: score.score}
        if key == "bleu":
            scores["chrf"] = chrf.corpus_score(hypotheses, [references]).score
            scores["length_ratio"] = score.sys_len / max(score.ref_len, 1)
        return scores

    present = ~np.isnan(nbest.components).all(axis=(0, 1))
    result: dict[str, Any] = {"target_lang": language, "plain": row(Weights(), lenpen)}
    if key == "bleu":
        result["bleu_signature"] = signature_of(metric)
    # a fair baseline has a tuned length penalty, because the general form has a length weight
    tuned = tune_lenpen(nbest, bleu, lenpen)
    result["lenpen"] = row(Weights(), tuned, Weights().score(nbest.components, tuned).argmax(axis=1))
    if present[1:4].all():
        result["by_alpha"] = [{"alpha": round(float(a), 4), **row(Weights.of_alpha(float(a)), lenpen)} for a in ALPHAS]
        result["alpha"] = max(result["by_alpha"], key=lambda r: (r[key], r["alpha"]))
    if present[1] and present[2]:
        result["general"] = row(grid_search(nbest, bleu), 0.0)
    if not {"alpha", "general"} & result.keys():
        raise UserError("the n-best list has no language model scores; give fairseq-generate --src-lm and --tgt-lm")
    result["best"] = max((form for form in FORMS if form in result), key=lambda form: result[form][key])
    return result


def options_of(row: dict[str, Any], alpha: float | None = None) -> str:
    """The options of fairseq-generate for a row of :func:`tune`."""
    if alpha is not None:
        return f"--dual-inference-alpha {alpha:g} --lenpen {row['lenpen']:g}"
    weights = row["weights"]
    names = ("reverse", "lm", "length")
    return " ".join([*(f"--dual-inference-{n}-weight {weights[n]:g}" for n in names), f"--lenpen {row['lenpen']:g}"])


def columns_of(result: dict[str, Any]) -> list[str]:
    """The names in :data:`COLUMNS` that a result has."""
    return [name for name in COLUMNS if name in result["plain"]]


def table(result: dict[str, Any]) -> str:
    """The result as plain text: by α, by form, and the options for the forms."""
    columns = columns_of(result)
    rows = [("", "", *(COLUMNS[name][0] for name in columns))]

    def line(name: str, row: dict[str, Any]) -> None:
        rows.append((name, "", *(f"{row[column]:.{COLUMNS[column][1]}f}" for column in columns)))

    for row in result.get("by_alpha", []):
        line(f"α = {row['alpha']:.2f}", row)
    line("plain", result["plain"])
    line(f"plain, lenpen {result['lenpen']['lenpen']:g}", result["lenpen"])
    options = []
    if "alpha" in result:
        line("best α", result["alpha"])
        options.append("best α:       " + options_of(result["alpha"], result["alpha"]["alpha"]))
    if "general" in result:
        line("general form", result["general"])
        options.append("general form: " + options_of(result["general"]))
    signature = [f"BLEU: {result['bleu_signature']}", ""] if "bleu" in columns else []
    return "\n".join([aligned(rows), "", *signature, "as options of fairseq-generate:", *options])


@look()
def picture(result: dict[str, Any], out: Path, title: str) -> None:
    """Plot BLEU, chrF and length ratio, or the accuracy, over α, with the other forms as lines."""
    from matplotlib.figure import Figure

    columns = columns_of(result)
    figure = Figure(figsize=(1 + 4 * len(columns), 3.8), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)
    for axes, key in zip(panels[0], columns, strict=True):
        if "by_alpha" in result:
            axes.plot([r["alpha"] for r in result["by_alpha"]], [r[key] for r in result["by_alpha"]], marker=".")
        for form, colour in (("plain", "0.5"), ("general", "tab:green")):
            if form in result:
                axes.axhline(result[form][key], color=colour, linestyle="--", label=f"{form} ({result[form][key]:.2f})")
        axes.set_xlabel("α (1: plain generation)")
        axes.set_title(COLUMNS[key][0])
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    figure.suptitle(title, parse_math=False)  # it may have a $
    with whole_file(out) as file:
        figure.savefig(file, format="png", dpi=110)


def write(result: dict[str, Any], out: Path, title: str) -> None:
    """Write alpha.tsv, tuning.png and, last, weights.json."""
    out.mkdir(parents=True, exist_ok=True)
    columns = columns_of(result)
    lines = ["\t".join(["alpha", *columns])]
    for row in result.get("by_alpha", []):
        lines.append("\t".join([f"{row['alpha']:g}", *(f"{row[column]:.4f}" for column in columns)]))
    write_text(out / "alpha.tsv", "\n".join(lines) + "\n")
    picture(result, out / "tuning.png", title)
    write_json(out / "weights.json", result)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = Parser("tune", str(__doc__))
    parser.add_argument(
        "nbest", type=Path, nargs="+", metavar="FILE",
        help="the output of fairseq-generate (with --results-path, both files)",
    )  # fmt: skip
    parser.add_argument("--reference", type=Path, metavar="FILE", help="the references: raw text, a sentence per line")
    add_dest(parser, "(with the references, instead of --reference and --tokenizer)")
    add_split(parser, "(default %(default)s)", "valid")
    add_languages(parser, sides=("target",), required=True)
    add_output(parser, "the folder for weights.json, alpha.tsv and tuning.png", "DIR")
    parser.add_argument(
        "--tokenizer", choices=("moses", "none"), default="moses",
        help="the tokenisation of the list, which tune undoes (default %(default)s)",
    )  # fmt: skip
    add_lenpen(parser)
    add_sacrebleu_tokenize(parser)
    options = parser.parse_args(arguments)

    if (options.reference is None) is (options.dest is None):
        raise UserError("give the references, by --reference FILE or by --dest DEST")
    for name in ("alpha.tsv", "tuning.png", "weights.json"):
        check_output(options.output / name, [options.reference, *options.nbest])
    if options.dest is not None:
        from ..data.text import TextPipeline

        pipeline = TextPipeline(options.dest)
        references = pipeline.text(options.split, options.target_lang)
        undo = partial(pipeline.detokenize, language=options.target_lang)
        side = pipeline.data.sides[options.target_lang]
        segmented, subword = side.segmented, side.subword
    else:
        references = read_lines(options.reference)
        undo = partial(detokenize, language=options.target_lang, tokenizer=options.tokenizer)
        segmented, subword = options.tokenizer == "none", ""
    bleu = (options.target_lang, segmented, options.sacrebleu_tokenize or None)
    metric = bleu_metric(*bleu, subword=subword)
    if missing := missing_tokenizer(*bleu):
        print(missing)
    lines = [line for path in options.nbest for line in read_lines(path)]
    nbest = read_nbest(lines, len(references), options.nbest[0])
    nbest.texts = detokenize_all(nbest.texts, undo)
    result = tune(nbest, references, options.target_lang, options.lenpen, metric)
    write(result, options.output, f"{options.nbest[0].name}, {len(references)} sentences")
    print(table(result))
