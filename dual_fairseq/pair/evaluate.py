"""Scores what fairseq-generate printed: detokenised sacreBLEU and chrF of both directions, and a table of stages.

``dual-fairseq evaluate-files score DEST OUT --split test`` is the last step of ``scripts/evaluate.sh``;
``dual-fairseq evaluate-files table RUN --split test`` prints what ``scripts/train_dual.sh`` ends with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fairseq.data import data_utils
from sacrebleu.metrics import BLEU, CHRF

from ..common.errors import UserError
from ..common.files import read_lines, write_json, write_text
from ..data.tokenizer import detokenize
from ..plugin.dual_inference import read_choice
from .nbest import read_nbest

# Where the tokenizer that sacreBLEU has for a language needs a package that is not installed.
FALLBACK_TOKENIZERS = {"ja": "char", "ko": "13a"}
STAGES = {"warmup": "warm start", "mle": "MLE continued", "dual": "dual"}


@dataclass
class Scores:
    """What is known of one direction on one split.

    ``nll_bits_per_token`` is of the reference, ``</s>`` included. ``dual_inference`` has ``bleu``, ``chrf`` and
    ``length_ratio`` of the same n-best lists re-scored, and the ``weights`` and ``lenpen`` that did it.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    length_ratio: float
    sentences: int
    untranslated: int
    nll_bits_per_token: float | None = None
    dual_inference: dict[str, object] | None = None


def read_hypotheses(lines: Iterable[str]) -> dict[int, str]:
    """The best hypothesis of each sentence in fairseq-generate's output.

    Args:
        lines: its lines. ``H-<sentence>\\t<score>\\t<tokens>`` are read, of an n-best list the first; the order in the
            output is that of the batches, so the sentence number is what counts.

    Returns:
        The tokens by sentence number (from 0), joined by spaces.
    """
    hypotheses: dict[int, str] = {}
    for line in lines:
        if line.startswith("H-"):
            head, _, tokens = line.split("\t", 2)
            hypotheses.setdefault(int(head[2:]), tokens)
    return hypotheses


def read_validation(lines: Iterable[str], split: str) -> dict[str, float]:
    """The metrics that fairseq-validate printed with ``--log-format json``, without the split's name.

    Raises:
        UserError: there are none.
    """
    for line in lines:
        message = line.rpartition(f" | {split} | ")[2]
        if message != line and message.startswith("{"):
            stats: dict[str, object] = json.loads(message)
            prefix = f"{split}_"
            if any(key.startswith(prefix) for key in stats):
                return {k.removeprefix(prefix): float(str(v)) for k, v in stats.items() if k.startswith(prefix)}
    raise UserError(f"fairseq-validate printed no result for split '{split}'; see its output in validate.txt")


def bleu_metric(language: str, tokenize: str | None = None) -> BLEU:
    """BLEU with sacreBLEU's tokenizer for a target language.

    Args:
        language: language code of the references.
        tokenize: the name of a sacreBLEU tokenizer; by default sacreBLEU chooses (``zh``, ``ja-mecab``, ``ko-mecab``,
            else ``13a``). Where its choice needs a package that is not installed, ``FALLBACK_TOKENIZERS`` has another.

    Raises:
        UserError: there is no such tokenizer, or its package is not installed.
    """
    if tokenize is not None:
        if tokenize not in BLEU.TOKENIZERS:
            raise UserError(f"--sacrebleu-tokenize {tokenize}: choose one of {', '.join(sorted(BLEU.TOKENIZERS))}")
        try:
            return BLEU(tokenize=tokenize)
        except (RuntimeError, ImportError) as error:
            raise UserError(f"--sacrebleu-tokenize {tokenize}: {' '.join(str(error).split())}") from error
    try:
        return BLEU(trg_lang=language)
    except (RuntimeError, ImportError):
        if language not in FALLBACK_TOKENIZERS:
            raise
        fallback = FALLBACK_TOKENIZERS[language]
        print(
            f"sacreBLEU's tokenizer for '{language}' is not installed (pip install 'sacrebleu[{language}]'): "
            f"BLEU into {language} is computed with tokenizer '{fallback}'"
        )
        return BLEU(tokenize=fallback)


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    tokenize: str | None = None,
    untranslated: int = 0,
) -> Scores:
    """Corpus BLEU and chrF (0 to 100, cased) of detokenised text.

    Args:
        hypotheses, references: sentences, line by line.
        language: the target language.
        tokenize: see :func:`bleu_metric`.
        untranslated: how many hypotheses are empty for want of a translation, to be noted.

    Raises:
        UserError: there is nothing to score.
    """
    if not references:
        raise UserError("no sentence to score: the split is empty")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    bleu, chrf = bleu_metric(language, tokenize), CHRF()
    bleu_score = bleu.corpus_score(hypotheses, [references])
    return Scores(
        bleu=bleu_score.score,
        bleu_signature=bleu.get_signature().format(),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=chrf.get_signature().format(),
        length_ratio=bleu_score.sys_len / max(bleu_score.ref_len, 1),
        sentences=len(references),
        untranslated=untranslated,
    )


def evaluate(
    dest: Path, out: Path, split: str, tokenize: str | None = None, dual_inference: bool = False
) -> dict[str, object]:
    """Score the output of fairseq-generate and fairseq-validate that lies in ``out``.

    Args:
        dest: the folder that ``scripts/preprocess.sh`` wrote.
        out: holds ``<src>-<tgt>.generate.txt`` of both directions and ``validate.txt``; gets the texts and
            ``scores.json``, written last and whole.
        split: the split that was translated.
        tokenize: see :func:`bleu_metric`.
        dual_inference: score the re-scored n-best lists too, by the weights in ``out``/tuning/<src>-<tgt>/weights.json.

    Returns:
        The content of ``scores.json``: :class:`Scores` by direction, and ``gap_abs`` (nats a sentence pair) where the
        language models were given.

    Raises:
        UserError: a file is missing or does not belong to the others.
    """
    record = json.loads("\n".join(read_lines(dest / "preprocess.json")))
    languages = (record["source"], record["target"])
    validation = read_validation(read_lines(out / "validate.txt"), split)
    texts = {language: read_lines(dest / "raw" / f"{split}.{language}") for language in languages}
    result: dict[str, object] = {}
    for source, target in (languages, languages[::-1]):
        direction = f"{source}-{target}"
        generated = out / f"{direction}.generate.txt"
        by_number = read_hypotheses(read_lines(generated))
        count = len(texts[target])
        if len(texts[source]) != count:
            raise UserError(
                f"{dest / 'raw'}: {split}.{source} has {len(texts[source])} lines and {split}.{target} {count}; "
                "run scripts/preprocess.sh again"
            )
        binarized = dest / "dual" / f"{split}.{languages[0]}-{languages[1]}.{target}"
        if len(data_utils.load_indexed_dataset(str(binarized), None)) != count:
            raise UserError(
                f"{dest / 'raw' / f'{split}.{target}'}: has not as many lines as {binarized}.bin has sentences; "
                "run scripts/preprocess.sh again"
            )
        # a sentence that fairseq-generate left out counts as translated by nothing
        missing = count - len(by_number)
        if missing:
            print(
                f"{direction}: {missing} of {count} sentences were not translated and count as empty "
                "(too long for the model, or an output that was cut short)"
            )
        hypotheses = detokenize([by_number.get(number, "") for number in range(count)], target, record["tokenizer"])
        for name, lines in (("src", texts[source]), ("hyp", hypotheses), ("ref", texts[target])):
            write_text(out / f"{direction}.{name}.txt", "".join(f"{line}\n" for line in lines))
        scores = score(hypotheses, texts[target], target, tokenize, missing)
        scores.nll_bits_per_token = validation.get(f"nll_loss_{direction}")
        tuned = out / "tuning" / direction / "weights.json"
        if dual_inference:
            choice = read_choice(tuned)
            lenpen = choice.lenpen or 0.0
            best = read_nbest(read_lines(generated), count, generated).best(choice.weights, lenpen)
            best = detokenize(best, target, record["tokenizer"])
            write_text(out / f"{direction}.dual-inference.hyp.txt", "".join(f"{line}\n" for line in best))
            rescored = score(best, texts[target], target, tokenize)
            scores.dual_inference = {
                "bleu": rescored.bleu, "chrf": rescored.chrf, "length_ratio": rescored.length_ratio,
                "weights": asdict(choice.weights), "lenpen": lenpen,
            }  # fmt: skip
        result[direction] = asdict(scores)
    if "gap_abs" in validation:
        result["gap_abs"] = validation["gap_abs"]
    write_json(out / "scores.json", result)
    return result


def table(rows: Iterable[tuple[str, dict[str, object]]]) -> str:
    """A plain-text table of scores, a line for each system and direction.

    Args:
        rows: what to call the system, and its ``scores.json``.
    """
    rows = list(rows)
    head: tuple[str, ...] = ("direction", "system", "BLEU", "chrF", "length", "NLL bits/token", "mean |gap| nats")
    rescored = any(isinstance(v, dict) and v.get("dual_inference") for _, scores in rows for v in scores.values())
    if rescored:
        head += ("dual inference: BLEU", "length")
    lines: list[tuple[str, ...]] = [head]
    for name, scores in rows:
        gap = scores.get("gap_abs")
        for direction, values in scores.items():
            if isinstance(values, dict):
                numbers = [values["bleu"], values["chrf"], values["length_ratio"], values["nll_bits_per_token"], gap]
                if rescored:
                    of_it = values.get("dual_inference") or {}
                    numbers += [of_it.get("bleu"), of_it.get("length_ratio")]
                digits = (2, 2, 3, 3, 2, 2, 3)[: len(numbers)]
                cells = ("-" if n is None else f"{n:.{d}f}" for n, d in zip(numbers, digits, strict=True))
                lines.append((direction, name, *cells))
    directions = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: directions.index(line[0]))
    return aligned(lines)


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as plain text in columns: the first two, which are names, to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the first lines of this file."""
    parser = argparse.ArgumentParser(prog="dual-fairseq evaluate-files", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score", help="score the output of fairseq-generate of both directions")
    scoring.add_argument("dest", type=Path, help="the folder that scripts/preprocess.sh wrote")
    scoring.add_argument("out", type=Path, help="the folder with the output, which also gets the scores")
    scoring.add_argument("--split", default="test")
    scoring.add_argument("--sacrebleu-tokenize", metavar="NAME", help="a sacreBLEU tokenizer, in both directions")
    scoring.add_argument("--dual-inference", action="store_true", help="by the weights in OUT/tuning")
    tabulating = commands.add_parser("table", help="print the scores of all stages of a run")
    tabulating.add_argument("run", type=Path, help="the folder of scripts/train_dual.sh")
    tabulating.add_argument("--split", default="test")
    options = parser.parse_args(arguments)

    if options.command == "score":
        result = evaluate(options.dest, options.out, options.split, options.sacrebleu_tokenize, options.dual_inference)
        print(table([(options.split, result)]))
        return
    found = [(name, options.run / stage / "eval" / options.split / "scores.json") for stage, name in STAGES.items()]
    rows = [(name, json.loads("\n".join(read_lines(path)))) for name, path in found if path.is_file()]
    if not rows:
        raise UserError(f"{options.run}: no stage was evaluated on split '{options.split}'; see scripts/train_dual.sh")
    print(table(rows))
