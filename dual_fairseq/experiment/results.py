"""The result of a row with a seed: what dual-fairseq evaluate left, and other choices from its n-best lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.folders import RECORD, RunFolder
from ..common.tables import read_scores
from .recipe import Recipe, Row, resolved


@dataclass
class Result:
    """One row, one seed, one direction, on the test text.

    Args:
        scores: search → BLEU, chrF, length ratio.
        texts: search → translations.
        references: of the test text.
        lenpen: the length penalty tuned on the validation text; it ranks the n-best list of the beam again.
        nll_bits: NLL of the reference, in bits per token.
        limit_bits: the truth's own NLL, if it is known.
        validation_bleu: the BLEU that chose the checkpoint: greedy, mean of both directions.
        checkpoint_updates: the number of updates of that checkpoint.
        updates, seconds: of the whole training, in all rounds, without validation.
        signature, chrf_signature: sacreBLEU's signatures of the scores.
    """

    scores: dict[str, Any]
    texts: dict[str, list[str]]
    references: list[str]
    lenpen: float
    nll_bits: float
    limit_bits: float | None
    validation_bleu: float
    checkpoint_updates: int
    updates: int
    seconds: float
    signature: str = ""
    chrf_signature: str = ""


def scores_of(recipe: Recipe, work: Path, row: Row, seed: int) -> Path | None:
    """The folder of the scores that the recipe's settings give a row's run; None if there are none yet.

    The checkpoint and the language models may be gone, to save room: see :func:`unchecked`.
    """
    from ..pipeline.devices import Device
    from ..pipeline.evaluate import Evaluation, get_parser

    options = get_parser().parse_args(resolved(recipe.evaluation(work, row, seed)))
    test = recipe.test_data(work)
    if not (options.checkpoint.parent / "eval").is_dir() or (test and not (test / RECORD).is_file()):
        return None
    evaluation = Evaluation(options, [], Device(0, 1), expected=True)
    return evaluation.out if evaluation.done() else None


def all_scores_of(recipe: Recipe, work: Path, row: Row, seeds: Sequence[int]) -> list[Path]:
    """The folders of the scores of a row's runs; empty unless every seed has scores."""
    found = [place for seed in seeds if (place := scores_of(recipe, work, row, seed))]
    return list(dict.fromkeys(found)) if len(found) == len(seeds) else []


def unchecked(recipe: Recipe, work: Path, row: Row, seeds: Sequence[int]) -> bool:
    """Whether a checkpoint or language model of a row is gone: its scores are not known to be of that file."""
    checkpoints = [RunFolder(folder).stage(row.stage).result for folder in recipe.folders(work, row, seeds)]
    language_models = map(Path, recipe.language_models_of(work, row.language_models)[1::2])
    return not all(file.is_file() for file in (*checkpoints, *language_models))


def seconds_of(run: RunFolder, stage: str) -> float:
    """The time of a stage's training, in all rounds, without validation."""
    from ..report.runs import read_log

    return sum(epoch["train_wall"] for files in run.trainings(stage) for epoch in read_log(files.log)[1])


def result_of(recipe: Recipe, work: Path, out: Path, direction: str) -> Result:
    """The results of dual-fairseq evaluate, and those of its n-best lists with other choices.

    Args:
        recipe: the recipe.
        work: the folder of the experiment.
        out: the folder of the scores, in the stage of a row's run.
    """
    from ..common.bleu import tokenizer_of_signature
    from ..common.files import read_lines
    from ..data.text import TextPipeline
    from ..pair.evaluate import score
    from ..pair.nbest import read_nbest
    from ..plugin.ranking import Weights, read_choice
    from ..report.demo import entropy_limits
    from ..report.runs import read_run

    target = direction.split("-")[1]
    scores = read_scores(out / "scores.json")[direction]
    references = read_lines(out / f"{direction}.ref.txt")
    generated = out / f"{direction}.generate.txt"
    nbest = read_nbest(read_lines(generated), len(references), generated)
    tuned, alpha = (read_choice(out / "tuning" / direction / "weights.json", form) for form in ("lenpen", "alpha"))
    lenpen = tuned.lenpen or 0.0
    chosen = Weights().score(nbest.components, lenpen).argmax(axis=1)
    text = TextPipeline(recipe.whole(work))
    texts = {
        "plain": read_lines(out / f"{direction}.hyp.txt"),
        "tuned": text.detokenize(nbest.take(chosen), target),
        "alpha": text.detokenize(nbest.best(alpha.weights, alpha.lenpen or 0.0), target),
        "dual_inference": read_lines(out / f"{direction}.dual-inference.hyp.txt"),
    }
    bleu_by = tokenizer_of_signature(scores["bleu_signature"])
    measured = {search: score(lines, references, target, tokenize=bleu_by) for search, lines in texts.items()}
    limited = not recipe.test and (work / "text" / "truth.json").is_file()
    limits = entropy_limits(work, "test") if limited else {}
    run, name = RunFolder(out.parents[2]), out.parents[1].name
    stage = read_run(run.folder).stages[name]
    best = stage.best
    if best is None:
        raise UserError(f"{stage.folder}: its log holds no validation; delete the folder, and run the command again")
    return Result(
        scores={s: {"bleu": f.bleu, "chrf": f.chrf, "length_ratio": f.length_ratio} for s, f in measured.items()},
        texts=texts, references=references, lenpen=lenpen, nll_bits=scores["nll_bits_per_token"],
        limit_bits=limits.get(direction), validation_bleu=best["bleu"],
        checkpoint_updates=int(best["num_updates"]), updates=run.updates(name), seconds=seconds_of(run, name),
        signature=measured["plain"].bleu_signature or "", chrf_signature=measured["plain"].chrf_signature or "",
    )  # fmt: skip
