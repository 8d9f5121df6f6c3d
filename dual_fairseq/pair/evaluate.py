"""Scores the output of fairseq-generate: detokenised sacreBLEU and chrF of both directions.

This is the last step of ``dual-fairseq evaluate``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

from fairseq.data import data_utils
from sacrebleu.metrics import CHRF

from ..common.arguments import Parser
from ..common.bleu import bleu_metric, name_of, signature_of
from ..common.errors import UserError
from ..common.files import read_lines, sha256, write_json, write_text
from ..common.tables import FAIRSEQ, aligned, confusion_cells, score_table
from ..data.text import TextPipeline
from ..plugin.ranking import read_choice
from .nbest import best_of, read_nbest


@dataclass
class Scores:
    """The scores of one direction on one split.

    Labels and tags have no BLEU and chrF. They have ``accuracy`` in percent and ``confusion``: how often each right one
    was predicted as which. ``cut_off`` translations were cut off at the length limit. ``nll_bits_per_token`` is the NLL
    of the reference, with ``</s>``. ``dual_inference`` has the scores of the re-scored n-best lists, with their
    ``weights`` and ``lenpen``.
    """

    bleu: float | None
    bleu_signature: str | None
    chrf: float | None
    chrf_signature: str | None
    length_ratio: float
    sentences: int
    untranslated: int
    accuracy: float | None = None
    confusion: dict[str, dict[str, int]] | None = None
    cut_off: int = 0
    nll_bits_per_token: float | None = None
    dual_inference: dict[str, object] | None = None


def read_hypotheses(lines: Iterable[str]) -> dict[int, str]:
    """The best hypothesis of each sentence in fairseq-generate's output.

    Args:
        lines: the output. The function reads lines ``H-<sentence>\\t<score>\\t<tokens>``, only the first line of each
            n-best list. Lines are in batch order, so the sentence number decides.

    Returns:
        The tokens by sentence number (from 0), joined by spaces.
    """
    hypotheses: dict[int, str] = {}
    for line in lines:
        if line.startswith("H-"):
            head, _, tokens = line.split("\t", 2)
            hypotheses.setdefault(int(head[2:]), tokens)
    return hypotheses


def read_engine(lines: Iterable[str]) -> str:
    """The engine: from the ``engine:`` line of :mod:`~dual_fairseq.pair.generate`; fairseq prints no such line."""
    return next((line.removeprefix("engine: ") for line in lines if line.startswith("engine: ")), FAIRSEQ)


def read_cut_off(lines: Iterable[str]) -> set[tuple[int, int]]:
    """The translations that were cut off at the length limit: (sentence number from 0, rank from 1) of each L- line."""
    heads = (line[2:].split("\t") for line in lines if re.fullmatch(r"L-[0-9]+\t[0-9]+", line))
    return {(int(number), int(rank)) for number, rank in heads}


def read_validation(lines: Iterable[str], split: str) -> dict[str, float]:
    """The metrics that fairseq-validate printed with ``--log-format json``, without the split's name.

    Raises:
        UserError: there are no metrics.
    """
    for line in lines:
        message = line.rpartition(f" | {split} | ")[2]
        if message != line and message.startswith("{"):
            stats: dict[str, object] = json.loads(message)
            prefix = f"{split}_"
            if any(key.startswith(prefix) for key in stats):
                return {k.removeprefix(prefix): float(str(v)) for k, v in stats.items() if k.startswith(prefix)}
    raise UserError(f"fairseq-validate printed no result for split '{split}'; see its output in validate.txt")


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    segmented: bool = False,
    tokenize: str | None = None,
    untranslated: int = 0,
    subword: str = "",
) -> Scores:
    """Corpus BLEU and chrF (0 to 100, cased) of detokenised text, or the accuracy of labels or tags.

    Args:
        hypotheses, references: sentences, line by line.
        language: the target language.
        segmented, tokenize: see :func:`~dual_fairseq.common.bleu.bleu_tokenizer`.
        untranslated: how many hypotheses are empty because there is no translation, for the record.
        subword: the ``--subword`` of the target language.

    Raises:
        UserError: there is nothing to score.
    """
    if not references:
        raise UserError("no sentence to score: the split is empty")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    bleu, chrf = bleu_metric(language, segmented, tokenize, subword), CHRF()
    result = bleu.corpus_score(hypotheses, [references])
    scores = Scores(None, None, None, None, result.sys_len / max(result.ref_len, 1), len(references), untranslated)
    if name_of(bleu) == "accuracy":
        scores.accuracy, scores.confusion = result.score, confusion(references, hypotheses)
        return scores
    scores.bleu, scores.bleu_signature = result.score, signature_of(bleu)
    scores.chrf = chrf.corpus_score(hypotheses, [references]).score
    scores.chrf_signature = chrf.get_signature().format()
    return scores


def confusion(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, dict[str, int]]:
    """Right label or tag → predicted one → how often, without zeros; the most frequent first."""
    lines = (zip_longest(*map(str.split, pair), fillvalue="") for pair in zip(references, hypotheses, strict=True))
    pairs = [*chain.from_iterable(lines)]
    counts: dict[str, dict[str, int]] = {right: {} for right, _ in Counter(right for right, _ in pairs).most_common()}
    for (right, predicted), count in Counter(pairs).most_common():
        counts[right][predicted] = count
    return counts


def evaluate(
    dest: Path,
    out: Path,
    split: str,
    tokenize: str | None = None,
    dual_inference: bool = False,
    settings: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Score the output of fairseq-generate and fairseq-validate in ``out``.

    Args:
        dest: the folder that ``dual-fairseq preprocess`` wrote.
        out: the folder with ``<src>-<tgt>.generate.txt`` of both directions and ``validate.txt``. The texts are written
            there, and last ``scores.json``, whole.
        split: the split that was translated.
        tokenize: see :func:`~dual_fairseq.common.bleu.bleu_tokenizer`.
        dual_inference: also score n-best lists re-scored with the weights in ``out``/tuning/<src>-<tgt>/weights.json.
        settings: further settings of the scores, recorded with them.

    Returns:
        The content of ``scores.json``: :class:`Scores` by direction, and ``gap_abs`` (nats per sentence pair) if
        language models were given.

    Raises:
        UserError: a file is missing or does not match the others.
    """
    pipeline = TextPipeline(dest)
    languages = pipeline.languages
    validation = read_validation(read_lines(out / "validate.txt"), split)
    texts = {language: pipeline.text(split, language) for language in languages}
    result: dict[str, object] = {"split": split, **(settings or {})}
    for source, target in (languages, languages[::-1]):
        direction = f"{source}-{target}"
        printed = read_lines(out / f"{direction}.generate.txt")
        result["engine"] = read_engine(printed)
        by_number, cut_off = read_hypotheses(printed), read_cut_off(printed)
        count = len(texts[target])
        if len(texts[source]) != count:
            raise UserError(
                f"{dest / 'raw'}: {split}.{source} has {len(texts[source])} lines and {split}.{target} {count}; "
                "run dual-fairseq preprocess again"
            )
        binarized = dest / "dual" / f"{split}.{languages[0]}-{languages[1]}.{target}"
        if len(data_utils.load_indexed_dataset(str(binarized), None)) != count:
            raise UserError(
                f"{dest / 'raw' / f'{split}.{target}'} and {binarized}.bin have different numbers of sentences; "
                "run dual-fairseq preprocess again"
            )
        # a sentence that fairseq-generate left out counts as an empty translation
        missing = count - len(by_number)
        if missing:
            print(
                f"{direction}: {missing} of {count} sentences were not translated and count as empty "
                "(too long for the model, or the output is incomplete)"
            )
        hypotheses = pipeline.detokenize([by_number.get(number, "") for number in range(count)], target)
        for name, lines in (("src", texts[source]), ("hyp", hypotheses), ("ref", texts[target])):
            write_text(out / f"{direction}.{name}.txt", "".join(f"{line}\n" for line in lines))
        side = pipeline.data.sides[target]
        scores = score(hypotheses, texts[target], target, side.segmented, tokenize, missing, side.subword)
        scores.cut_off = sum(rank == 1 for _, rank in cut_off)
        if scores.cut_off:
            print(
                f"{direction}: {scores.cut_off} of {count} translations were cut off at the length limit; "
                "--max-len-a and --max-len-b allow longer translations"
            )
        scores.nll_bits_per_token = validation.get(f"nll_loss_{direction}")
        if dual_inference:
            scores.dual_inference = _rescored(
                out, direction, target, printed, cut_off, texts[target], pipeline, tokenize
            )
        result[direction] = asdict(scores)
    if "gap_abs" in validation:
        result["gap_abs"] = validation["gap_abs"]
    write_json(out / "scores.json", result)
    return result


def _rescored(
    out: Path,
    direction: str,
    target: str,
    printed: list[str],
    cut_off: set[tuple[int, int]],
    references: list[str],
    pipeline: TextPipeline,
    tokenize: str | None,
) -> dict[str, object]:
    """Choose from the printed n-best lists with the tuned weights, write the choice and score it."""
    side = pipeline.data.sides[target]
    choice = read_choice(out / "tuning" / direction / "weights.json")
    lenpen = choice.lenpen or 0.0
    nbest = read_nbest(printed, len(references), out / f"{direction}.generate.txt")
    chosen = best_of(nbest.components, choice.weights, lenpen)
    best = pipeline.detokenize(nbest.take(chosen), target)
    write_text(out / f"{direction}.dual-inference.hyp.txt", "".join(f"{line}\n" for line in best))
    scores = score(best, references, target, side.segmented, tokenize, subword=side.subword)
    return {
        "bleu": scores.bleu, "chrf": scores.chrf, "length_ratio": scores.length_ratio,
        "bleu_signature": scores.bleu_signature, "accuracy": scores.accuracy, "confusion": scores.confusion,
        "cut_off": sum((number, rank + 1) in cut_off for number, rank in enumerate(chosen.tolist())),
        "weights": asdict(choice.weights), "lenpen": lenpen,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The last step of ``dual-fairseq evaluate``: score what fairseq's commands have printed into a folder."""
    parser = Parser("pair.evaluate", str(main.__doc__))
    parser.add_argument("dest", type=Path, help="the folder that preprocessing wrote")
    parser.add_argument("out", type=Path, help="the folder with the output, which also gets the scores")
    parser.add_argument("--split", default="test")
    parser.add_argument("--sacrebleu-tokenize", metavar="NAME", help="a sacreBLEU tokenizer, in both directions")
    parser.add_argument("--dual-inference", action="store_true", help="by the weights in OUT/tuning")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="whose digest is noted beside the scores")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="to be noted, too")
    options = parser.parse_args(arguments)
    settings = dict(setting.split("=", 1) for setting in options.setting)
    if options.checkpoint:
        settings["checkpoint_sha256"] = sha256(options.checkpoint)
    result = evaluate(
        options.dest, options.out, options.split, options.sacrebleu_tokenize, options.dual_inference, settings
    )
    print(score_table([(options.split, result)]))
    for direction, scores in result.items():
        if not isinstance(scores, dict) or not scores["confusion"]:
            continue
        for name, part in (("", scores), (" + dual inference", scores["dual_inference"])):
            if part:
                cells = confusion_cells(part["confusion"])
                print(f"\nConfusion, {direction}{name}\n{aligned([(right, '', *counts) for right, *counts in cells])}")
