"""How probable a trained pair finds parallel text: log P(y|x), log P(x|y), log P(x), log P(y) and the gap of each pair.

    dual-fairseq score CHECKPOINT -s de -t en --split valid
    dual-fairseq score CHECKPOINT -s de -t en --source my.de --target my.en --output scores.tsv
    dual-fairseq filter scores.tsv --source my.de --target my.en --keep 0.8 --output-prefix clean

docs/scoring.md tells how to filter noisy parallel text and how to estimate the quality of translations by the table.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.progress import Progress
from ..data.clean import REASONS, BadLine, decode, read_rows, say, survey
from ..data.text import TextPipeline, looks_foreign
from ..plugin.duality import duality_gap
from ..plugin.language_model import FrozenLanguageModel, load_language_model
from ..plugin.log_probs import BATCH_TOKENS, language_model_log_probs, translation_log_probs
from ..plugin.model import DualModel, direction_name, parameter_like
from ..plugin.task import DualTranslationTask
from .load import find_checkpoint, load_pair

CONDITIONALS = ("log_p_y_given_x", "log_p_x_given_y")
LOG_PROBS = (*CONDITIONALS, "log_p_x", "log_p_y")
COUNTS = ("tokens_x", "tokens_y", "unknown_x", "unknown_y")
COLUMNS = ("line", *COUNTS, *LOG_PROBS, "gap", *(f"{name}_per_token" for name in (*LOG_PROBS, "gap")), "note")
# Pairs held in memory and sorted by length at a time. Sorting more of them would hardly save any padding.
BLOCK_PAIRS = 16_384
_RESERVED = {"<s>", "</s>", "<pad>"}  # in text they would turn into the symbols that frame a sentence

LanguageModels = tuple[FrozenLanguageModel, FrozenLanguageModel]


class Block(NamedTuple):
    """Consecutive sentence pairs. One that cannot be scored has empty tensors and a note that says why."""

    sources: list[Tensor]
    targets: list[Tensor]
    notes: list[str]


# --- probabilities --------------------------------------------------------------------------------------------------


def score_pairs(
    pair: DualModel,
    task: DualTranslationTask,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    language_models: LanguageModels | None = None,
    max_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[str, np.ndarray]:
    """The log-probabilities of sentence pairs (x, y), ``</s>`` included, and their gap.

    Args:
        pair, task: of :func:`~dual_fairseq.pair.load.load_pair`; x is in the task's source language.
        sources, targets: N token tensors each, ending in ``</s>``; empty tensors are not scored.
        language_models: of the source and of the target language.
        max_tokens: padded tokens in a batch.
        advance: called with a number of sentences after each batch of each of the two (with language models four)
            passes over the text.

    Returns:
        ``CONDITIONALS``, and with language models all of ``LOG_PROBS`` and ``gap``, each (N,) float64 in nats; NaN
        where a sentence is too long for the model in question.
    """
    forward, reverse = task.directions

    def translation(direction: str, given: Sequence[Tensor], scored: Sequence[Tensor]) -> Tensor:
        side, models = task.sides[direction], [pair.models[direction]]
        left_pad = side.cfg.left_pad_source
        return translation_log_probs(models, given, scored, side.target_dictionary, left_pad, max_tokens, advance)

    y_given_x, x_given_y = translation(forward, sources, targets), translation(reverse, targets, sources)
    scores = {"log_p_y_given_x": y_given_x, "log_p_x_given_y": x_given_y}
    if language_models is not None:
        like = parameter_like(pair)
        x, y = (
            language_model_log_probs(lm, sentences, like, max_tokens, advance)
            for lm, sentences in zip(language_models, (sources, targets), strict=True)
        )
        gap = duality_gap(x.double(), y_given_x.double(), y.double(), x_given_y.double())
        scores |= {"log_p_x": x, "log_p_y": y, "gap": gap}
    return {name: score.double().cpu().numpy() for name, score in scores.items()}


# --- input ----------------------------------------------------------------------------------------------------------


def split_blocks(task: DualTranslationTask, split: str) -> tuple[int, Iterator[Block]]:
    """The number of pairs of a binarized split, and the pairs in its order.

    Raises:
        UserError: the split is not there, is empty, or has only one side.
    """
    task.load_dataset(split)
    dataset = task.datasets[split]
    if dataset.tgt is None:
        raise UserError(f"{task.cfg.data}: split '{split}' has no {task.cfg.target_lang} side, so there are no pairs")
    pairs = ((dataset.src[i], dataset.tgt[i], "") for i in range(len(dataset)))
    return len(dataset), _blocks(pairs)


def text_blocks(
    task: DualTranslationTask, source: Path, target: Path, pipeline: TextPipeline | None
) -> tuple[int, Iterator[Block]]:
    """The number of lines of two text files, and their pairs line by line.

    Args:
        source, target: plain or gzip, in the task's languages; line i of one belongs to line i of the other.
        pipeline: makes tokens of raw text; None for text that is tokenised and segmented already.

    Raises:
        UserError: a file cannot be read, or they have different numbers of lines.
    """
    found = [survey(path) for path in (source, target)]
    if found[0].lines != found[1].lines:
        raise UserError(
            f"{source} has {found[0].lines:,} lines and {target} has {found[1].lines:,}: they are no translations of "
            "each other line by line; give files of equal length"
        )
    sides = (
        ("source", task.cfg.source_lang, task.source_dictionary),
        ("target", task.cfg.target_lang, task.target_dictionary),
    )

    def pairs() -> Iterator[tuple[Tensor, Tensor, str]]:
        for rows in read_rows([(source, target)]):
            for row in rows.lines:
                tensors, note = [], ""
                for raw, (role, language, dictionary) in zip(row, sides, strict=True):
                    try:
                        line = _tokens(raw, language, pipeline)
                    except BadLine as bad:
                        note, line = note or f"{role}: {REASONS[str(bad)]}", ""
                    tensors.append(dictionary.encode_line(line, add_if_not_exist=False))
                yield tensors[0], tensors[1], note

    return found[0].lines, _blocks(pairs())


def _tokens(raw: bytes, language: str, pipeline: TextPipeline | None) -> str:
    """Raises: BadLine: nothing can be made of the line."""
    text = decode(raw, Counter())
    if pipeline is not None:
        text = pipeline.encode(text, language)
    words = text.split()
    if not words:
        raise BadLine("empty")
    if not _RESERVED.isdisjoint(words):
        raise BadLine("reserved")
    return text


def _blocks(pairs: Iterator[tuple[Tensor, Tensor, str]]) -> Iterator[Block]:
    while some := list(islice(pairs, BLOCK_PAIRS)):
        block = Block([], [], [])
        for source, target, note in some:
            for role, sentence in (("source", source), ("target", target)):
                if not note and len(sentence) < 2:  # nothing but </s>
                    note = f"{role}: {REASONS['empty']}"
            block.sources.append(source[:0] if note else source)
            block.targets.append(target[:0] if note else target)
            block.notes.append(note)
        yield block


# --- the table ------------------------------------------------------------------------------------------------------


def block_columns(
    block: Block, scores: Mapping[str, np.ndarray], unknown: tuple[int, int], limit: float
) -> dict[str, np.ndarray]:
    """All columns of the table but the line number.

    Args:
        block: N pairs.
        scores: of :func:`score_pairs`.
        unknown: the index of ``<unk>`` in the source and in the target dictionary.
        limit: the longest sentence in tokens that all models score.

    Returns:
        Column → (N,) array, NaN for an empty cell. Per-token values are divided by the tokens that the logarithm is
        about: those of y for log P(y|x) and log P(y), of x for log P(x|y) and log P(x), of both for the gap.
    """
    unscored = np.array([bool(note) for note in block.notes])
    nothing = np.full(len(unscored), math.nan)
    columns: dict[str, np.ndarray] = {name: scores.get(name, nothing) for name in (*LOG_PROBS, "gap")}
    for name, sentences, unk in zip("xy", (block.sources, block.targets), unknown, strict=True):
        columns[f"tokens_{name}"] = np.array([len(sentence) for sentence in sentences], dtype=np.float64)
        columns[f"unknown_{name}"] = np.array([int(s.eq(unk).sum()) for s in sentences], dtype=np.float64)
    for name in COUNTS:
        columns[name][unscored] = math.nan
    x, y = columns["tokens_x"], columns["tokens_y"]
    lengths = {"log_p_y_given_x": y, "log_p_x_given_y": x, "log_p_x": x, "log_p_y": y, "gap": x + y}
    for name, length in lengths.items():
        columns[f"{name}_per_token"] = columns[name] / length
    notes = np.array(block.notes, dtype=object)
    notes[~unscored & (np.maximum(x, y) > limit)] = "too long"
    no_number = ~np.isfinite(np.stack(list(scores.values()))).all(axis=0)
    notes[no_number & (notes == "")] = "no finite number"  # half precision may overflow inside a model
    columns["note"] = notes
    return columns


def write_rows(file: IO[bytes], first: int, columns: Mapping[str, np.ndarray]) -> None:
    """Write a block of the table; ``first`` is the line number of its first pair."""
    count = len(columns["note"])
    cells: list[list[str]] = []
    for name in COLUMNS:
        if name == "line":
            cells.append([str(line) for line in range(first, first + count)])
        elif name == "note":
            cells.append(columns[name].tolist())
        else:
            digits = 0 if name in COUNTS else 5 if name.endswith("_per_token") else 4
            cells.append([f"{value:.{digits}f}" if math.isfinite(value) else "" for value in columns[name].tolist()])
    file.writelines(("\t".join(row) + "\n").encode() for row in zip(*cells, strict=True))


@contextmanager
def whole_file(path: Path, inputs: Sequence[Path]) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete.

    Raises:
        UserError: it cannot be written, or is one of the inputs.
    """
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        raise UserError(f"{path}: would overwrite what is read; choose another name")
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        file = open(unfinished, "xb")  # noqa: SIM115  (only the opening shall be excused by this name)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


# --- command line ---------------------------------------------------------------------------------------------------


def get_parser() -> argparse.ArgumentParser:
    """The options of scoring."""
    parser = argparse.ArgumentParser(
        prog="dual-fairseq score",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="""\
The table has a header line and one line for each pair, in the order of the input; x is the -s and y the -t language:
  line                            number of the pair, from 1
  tokens_x, tokens_y              tokens of the models (BPE pieces, characters or words), </s> included
  unknown_x, unknown_y            of these, not in the dictionary
  log_p_y_given_x ... log_p_y     log P(y|x), log P(x|y), log P(x), log P(y), in nats, </s> included
  gap                             [log P(x) + log P(y|x)] - [log P(y) + log P(x|y)], in nats
  ..._per_token                   each divided by the tokens that it is about (the gap by those of x and y)
  note                            why cells are empty: a sentence is empty, too long, not UTF-8, ...

`dual-fairseq filter --help` explains filtering.""",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a pair, e.g. RUN/dual/checkpoint_best.pt")
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="language of x (default: as trained)")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="language of y (default: as trained)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="binarized data, or a folder with its dictionaries (default: DEST/dual, else as trained)",
    )
    what = parser.add_argument_group("what to score: --split, or --source and --target")
    what.add_argument("--split", metavar="NAME", help="a split of the binarized data, e.g. valid")
    what.add_argument("--source", type=Path, metavar="FILE", help="sentences in the -s language, one a line (or .gz)")
    what.add_argument("--target", type=Path, metavar="FILE", help="their translations, line by line")
    what.add_argument(
        "--dest",
        help="folder of preprocess.sh by which raw text is tokenised and segmented (default: the checkpoint's)",
    )
    what.add_argument("--segmented", action="store_true", help="the text is tokenised and segmented (BPE) already")
    lms = parser.add_argument_group("language models (default: those of the checkpoint's training)")
    lms.add_argument("--src-lm", metavar="FILE", help="fairseq language model of the -s language")
    lms.add_argument("--tgt-lm", metavar="FILE", help="fairseq language model of the -t language")
    lms.add_argument("--no-lm", action="store_true", help="only log P(y|x) and log P(x|y); the other cells stay empty")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the table goes (default: stdout)")
    parser.add_argument(
        "--max-tokens", type=int, default=BATCH_TOKENS, metavar="N", help="padded tokens a batch (default %(default)s)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--fp16", action="store_true", help="half precision, on a GPU")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Score, as the command line says.

    Raises:
        UserError: the user has something to mend.
    """
    options = get_parser().parse_args(arguments)
    _check_options(options)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    if options.fp16 and device.type == "cpu":
        raise UserError("--fp16: needs a GPU; leave it out")
    inputs = [path for path in (options.source, options.target, Path(options.checkpoint)) if path]
    with whole_file(options.output, inputs) if options.output else nullcontext(sys.stdout.buffer) as file:
        options.checkpoint = str(find_checkpoint(options.checkpoint))
        pipeline = TextPipeline(options.dest) if options.dest else None
        data = options.data or (pipeline.dictionaries if pipeline else None)
        languages = (options.source_lang, options.target_lang)
        pair, task = load_pair(options.checkpoint, data, *languages, device, {"lm_score_cache": None})
        if options.fp16:
            pair = pair.half()
        if options.split:
            total, blocks = split_blocks(task, options.split)
        else:
            if not options.segmented:
                pipeline = _fitting(pipeline or TextPipeline.of_checkpoint(options.checkpoint), task)
            total, blocks = text_blocks(task, options.source, options.target, pipeline)
        lms = _language_models(options, task)
        limit = min(*pair.max_positions(), *(lm.max_positions for lm in lms or ()))
        unknown = (task.source_dictionary.unk(), task.target_dictionary.unk())
        name = direction_name(task.cfg.source_lang, task.cfg.target_lang)
        say(f"scoring {total:,} pairs of {name} on the {'GPU' if device.type == 'cuda' else 'CPU'}")
        first, noted, told = 1, 0, False
        file.write("\t".join(COLUMNS).encode() + b"\n")
        with Progress("score", total, "pairs", tell=say) as bar:
            progress = _Passes(bar, passes=4 if lms else 2)
            for block in blocks:
                text = (block.sources, block.targets)
                told = told or _tell_foreign(text, task)
                scores = score_pairs(pair, task, *text, lms, options.max_tokens, progress.advance)
                columns = block_columns(block, scores, unknown, limit)
                write_rows(file, first, columns)
                file.flush()
                noted += int((columns["note"] != "").sum())
                first += len(block.notes)
                progress.finish(len(block.notes))
        say(f"scored {total:,} pairs" + (f"; {noted:,} have empty cells and a note that says why" if noted else ""))


def _check_options(options: argparse.Namespace) -> None:
    files = [path for path in (options.source, options.target) if path]
    if bool(options.split) == bool(files) or len(files) == 1:
        raise UserError("say what to score: --split NAME, or both --source FILE and --target FILE")
    if options.segmented and (options.split or options.dest):
        raise UserError("--segmented: is for --source and --target, and without --dest, which is for raw text")
    if bool(options.src_lm) != bool(options.tgt_lm):
        raise UserError("--src-lm and --tgt-lm: give both, or neither for those of the checkpoint's training")
    if options.no_lm and options.src_lm:
        raise UserError("--no-lm: contradicts --src-lm and --tgt-lm")
    if options.max_tokens < 1:
        raise UserError(f"--max-tokens {options.max_tokens}: must be at least 1")


def _fitting(pipeline: TextPipeline, task: DualTranslationTask) -> TextPipeline:
    languages = {task.cfg.source_lang, task.cfg.target_lang}
    if set(pipeline.languages) != languages:
        raise UserError(
            f"{pipeline.folder}: is of {' and '.join(pipeline.languages)}, not {' and '.join(sorted(languages))}; "
            "give another --dest"
        )
    return pipeline


def _language_models(options: argparse.Namespace, task: DualTranslationTask) -> LanguageModels | None:
    """Those given, else those of the checkpoint's training if they are still there, else none, which is said."""
    if options.no_lm:
        return None
    if options.src_lm:
        return (
            load_language_model(options.src_lm, task.source_dictionary, task.cfg.source_lang, "--src-lm"),
            load_language_model(options.tgt_lm, task.target_dictionary, task.cfg.target_lang, "--tgt-lm"),
        )
    if task.cfg.src_lm and task.cfg.tgt_lm:
        return task.priors.models()
    gone = task.gone_language_models
    reason = f"the language model {gone[0]} that it was trained with is gone" if gone else "has no language models"
    say(f"note: {options.checkpoint}: {reason}: the cells that need one stay empty; --src-lm and --tgt-lm fill them")
    return None


def _tell_foreign(text: tuple[Sequence[Tensor], Sequence[Tensor]], task: DualTranslationTask) -> bool:
    """Warn of text that is unknown to the models; whether it was done."""
    dictionaries = ((task.cfg.source_lang, task.source_dictionary), (task.cfg.target_lang, task.target_dictionary))
    foreign = [
        f"{role} ({language})"
        for role, sentences, (language, dictionary) in zip(("source", "target"), text, dictionaries, strict=True)
        if looks_foreign(sentences, dictionary)
    ]
    if foreign:
        say(f"warning: most tokens of {' and '.join(foreign)} are unknown to the models; are these the right files?")
    return bool(foreign)


class _Passes:
    """Pairs done, where each block takes several passes over its sentences."""

    def __init__(self, progress: Progress, passes: int) -> None:
        self._progress, self._passes = progress, passes
        self._finished, self._sentences = 0, 0

    def advance(self, count: int) -> None:
        """``count`` more sentences were scored in one of the passes over a block."""
        self._sentences += count
        self._progress.update(self._finished + self._sentences // self._passes - self._progress.done)

    def finish(self, count: int) -> None:
        """A block of ``count`` pairs is finished, whatever could not be scored in it."""
        self._finished, self._sentences = self._finished + count, 0
        self._progress.update(self._finished - self._progress.done)
