"""``dual-fairseq score``: scores parallel text with a trained pair."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.files import check_output, whole_file
from ..common.folders import find_checkpoint
from ..common.progress import Progress, say
from ..data.clean import REASONS, RESERVED
from ..data.lines import Survey, read_rows, survey_pair
from ..data.normalize import BadLine, decode, described
from ..data.text import TextPipeline, UnknownLabel, looks_foreign
from ..plugin.language_model import load_language_model
from ..plugin.model import direction_name
from ..plugin.task import DualTranslationTask
from .engine import choose_engine
from .load import load_pair
from .probabilities import LanguageModels, score_pairs
from .score_table import COUNTS, LOG_PROBS, name_text, write_head, write_rows

# Pairs held in memory and sorted by length at a time. Sorting more pairs would save almost no padding.
BLOCK_PAIRS = 16_384


class Block(NamedTuple):
    """Consecutive sentence pairs. A pair without a score has empty tensors and a note with the reason."""

    sources: list[Tensor]
    targets: list[Tensor]
    notes: list[str]


def split_blocks(task: DualTranslationTask, split: str) -> tuple[int, Iterator[Block]]:
    """The number of pairs of a binarized split, and the pairs in order.

    Raises:
        UserError: the split is missing or empty, or has only one side.
    """
    task.load_dataset(split)
    dataset = task.datasets[split]
    if dataset.tgt is None:
        raise UserError(f"{task.cfg.data}: split '{split}' has no {task.cfg.target_lang} side, so there are no pairs")
    pairs = ((dataset.src[i], dataset.tgt[i], "") for i in range(len(dataset)))
    return len(dataset), _blocks(pairs)


def text_blocks(
    task: DualTranslationTask, source: Path, target: Path, pipeline: TextPipeline | None
) -> tuple[tuple[Survey, Survey], Iterator[Block]]:
    """What two text files hold, and their pairs line by line.

    Args:
        source, target: plain or gzip files in the task's languages; the lines i of both files are a pair.
        pipeline: turns raw text into tokens; None for text that is tokenised and segmented already.

    Raises:
        UserError: a file cannot be read, or the numbers of lines differ.
    """
    texts = survey_pair(source, target)
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

    return texts, _blocks(pairs())


def _tokens(raw: bytes, language: str, pipeline: TextPipeline | None) -> str:
    """Raises BadLine if the line cannot be used."""
    text = decode(raw, Counter() if pipeline is None else pipeline.repairs, normalized=False)
    if pipeline is not None:
        try:
            text = pipeline.encode(text, language)
        except UnknownLabel as error:
            raise BadLine("label") from error
    words = text.split()
    if not words:
        raise BadLine("empty")
    if not RESERVED.isdisjoint(words):
        raise BadLine("reserved")
    return text


def _blocks(pairs: Iterator[tuple[Tensor, Tensor, str]]) -> Iterator[Block]:
    while chunk := list(islice(pairs, BLOCK_PAIRS)):
        block = Block([], [], [])
        for source, target, note in chunk:
            for role, sentence in (("source", source), ("target", target)):
                if not note and len(sentence) < 2:  # only </s>
                    note = f"{role}: {REASONS['empty']}"
            block.sources.append(source[:0] if note else source)
            block.targets.append(target[:0] if note else target)
            block.notes.append(note)
        yield block


def block_columns(
    block: Block, scores: Mapping[str, np.ndarray], unknown: tuple[int, int], limit: float
) -> dict[str, np.ndarray]:
    """All columns of the table except ``line`` and ``text``.

    Args:
        block: N pairs.
        scores: from :func:`score_pairs`.
        unknown: the index of ``<unk>`` in the source and in the target dictionary.
        limit: the longest sentence in tokens that all models score.

    Returns:
        Column → (N,) array, NaN for an empty cell. Per-token values are divided by numbers of tokens: of y for log
        P(y|x) and log P(y), of x for log P(x|y) and log P(x), of both for the gap.
    """
    unscored = np.array([bool(note) for note in block.notes])
    empty = np.full(len(unscored), math.nan)
    columns: dict[str, np.ndarray] = {name: scores.get(name, empty) for name in (*LOG_PROBS, "gap")}
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


def run(options: argparse.Namespace) -> None:
    """Score the text of the options of ``dual-fairseq score``.

    Raises:
        UserError: a file or the checkpoint is wrong.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    if options.fp16 and device.type == "cpu":
        raise UserError("--fp16: needs a GPU; leave it out")
    checkpoint = find_checkpoint(options.run)
    inputs = [checkpoint, options.source, options.target, options.src_lm, options.tgt_lm]
    if options.output:
        check_output(options.output, inputs)
    with whole_file(options.output) if options.output else nullcontext(sys.stdout.buffer) as file:
        pipeline = TextPipeline(options.dest) if options.dest else None
        data = options.data or (pipeline.dictionaries if pipeline else None)
        languages = (options.source_lang, options.target_lang)
        pair, task = load_pair(checkpoint, data, *languages, device, {"lm_score_cache": None})
        if options.fp16:
            pair = pair.half()
        engine = choose_engine(options.engine, [pair], task, [checkpoint], options.int8)
        text_name = ""
        if options.split:
            total, blocks = split_blocks(task, options.split)
        else:
            if not options.segmented:
                pipeline = _fitting(pipeline or TextPipeline.of_checkpoint(checkpoint), task)
            texts, blocks = text_blocks(task, options.source, options.target, pipeline)
            total = texts[0].lines
            if not options.segmented:  # such scores may filter the same lines before segmentation
                text_name = name_text((task.cfg.source_lang, task.cfg.target_lang), texts)
        lms = _language_models(options, task, checkpoint)
        limit = min(*pair.max_positions(), *(lm.max_positions for lm in lms or ()))
        unknown = (task.source_dictionary.unk(), task.target_dictionary.unk())
        name = direction_name(task.cfg.source_lang, task.cfg.target_lang)
        say(f"scoring {total:,} pairs of {name} with {checkpoint} on the {'GPU' if device.type == 'cuda' else 'CPU'}")
        first, noted, warned = 1, 0, False
        write_head(file)
        with Progress("score", total, "pairs") as bar:
            progress = _Passes(bar, passes=4 if lms else 2)
            for block in blocks:
                sentences = (block.sources, block.targets)
                warned = warned or _warn_of_foreign_text(sentences, task)
                scores = score_pairs(pair, task, *sentences, lms, options.max_tokens, progress.advance, engine)
                columns = block_columns(block, scores, unknown, limit)
                write_rows(file, first, columns, text_name)
                file.flush()
                noted += int((columns["note"] != "").sum())
                first += len(block.notes)
                progress.finish(len(block.notes))
    if pipeline is not None and (repaired := described(pipeline.repairs)):
        say(f"repaired: {repaired}")
    say(f"scored {total:,} pairs" + (f"; {noted:,} have empty cells and a note that says why" if noted else ""))


def _fitting(pipeline: TextPipeline, task: DualTranslationTask) -> TextPipeline:
    languages = {task.cfg.source_lang, task.cfg.target_lang}
    if set(pipeline.languages) != languages:
        raise UserError(
            f"{pipeline.folder}: has the languages {' and '.join(pipeline.languages)}, not "
            f"{' and '.join(sorted(languages))}; give another --dest"
        )
    return pipeline


def _language_models(options: argparse.Namespace, task: DualTranslationTask, checkpoint: Path) -> LanguageModels | None:
    """The language models of the options, else of the pair's training, else none, with a note."""
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
    say(
        f"note: {checkpoint}: {reason}: the cells that need a language model stay empty; give --src-lm and --tgt-lm "
        "to fill them"
    )
    return None


def _warn_of_foreign_text(text: tuple[Sequence[Tensor], Sequence[Tensor]], task: DualTranslationTask) -> bool:
    """Warn of text that is unknown to the models; returns whether there was a warning."""
    foreign = [
        f"{role} ({language})"
        for role, sentences, language in zip(("source", "target"), text, task.dictionaries, strict=True)
        if looks_foreign(sentences, task.dictionaries[language])
    ]
    if foreign:
        say(f"warning: most tokens of {' and '.join(foreign)} are unknown to the models; are these the right files?")
    return bool(foreign)


class _Passes:
    """Counts finished pairs; each block takes several passes over its sentences."""

    def __init__(self, progress: Progress, passes: int) -> None:
        self._progress, self._passes = progress, passes
        self._finished, self._sentences = 0, 0

    def advance(self, count: int) -> None:
        """``count`` more sentences were scored in one of the passes over a block."""
        self._sentences += count
        self._progress.update(self._finished + self._sentences // self._passes - self._progress.done)

    def finish(self, count: int) -> None:
        """A block of ``count`` pairs is finished, including pairs without a score."""
        self._finished, self._sentences = self._finished + count, 0
        self._progress.update(self._finished - self._progress.done)
