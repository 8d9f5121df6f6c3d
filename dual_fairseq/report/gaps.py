"""log P(x) + log P(y|x) and log P(y) + log P(x|y) of a run's sentence pairs, by each of its stages.

Scores are kept in the run (``report-cache/``) under a digest of everything that determines them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, data_utils
from torch import Tensor

from ..common.errors import UserError
from ..common.files import CannotWrite, whole_file
from ..common.folders import RunFolder
from ..common.progress import Progress, say
from ..pair.load import load_pair
from ..pair.probabilities import Advance, conditional_log_probs, prior_log_probs
from ..plugin.checkpoint import load_state
from ..plugin.language_model import FrozenLanguageModel, load_language_model
from ..plugin.model import direction_name
from ..plugin.score_cache import cache_key, load_scores
from .runs import Run, find


@dataclass
class PairScores:
    """Scores of N sentence pairs, without pairs that one of the models cannot score.

    Args:
        forward, reverse: log P(x) + log P(y|x) and log P(y) + log P(x|y), each (N,) in nats.
    """

    forward: np.ndarray
    reverse: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """(N,) nats."""
        return self.forward - self.reverse


@dataclass
class _Side:
    """One language of the pairs: its dictionary, its sentences, the file of its language model."""

    language: str
    dictionary: Dictionary
    sentences: list[Tensor]
    language_model: Path


def score_run(run: Run, split: str, pairs: int, data: Path | None = None, cpu: bool = False) -> dict[str, PairScores]:
    """Score sentence pairs of a split by the result of every stage that has one.

    Args:
        run: its language models are those in ``RUN/lm``, else those recorded in its checkpoints.
        split: of the binarized data.
        pairs: score at most this many pairs, at even distances in the text.
        data: the folder of ``dual-fairseq preprocess`` or its ``dual``; default: the one recorded in the checkpoints.
        cpu: use no GPU even if there is one.

    Returns:
        stage → scores.

    Raises:
        UserError: checkpoints, data or language models are missing.
    """
    checkpoints = {key: stage.checkpoint for key, stage in run.stages.items() if stage.checkpoint.is_file()}
    if not checkpoints:
        raise UserError(f"{run.folder}: no stage has a checkpoint_best.pt")
    folder, source, target = _sides([*checkpoints.values()], run, split, pairs, data)
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")

    texts = (source.sentences, target.sentences)

    def prior(advance: Advance) -> np.ndarray:
        lms = (_language_model(source, "--src-lm"), _language_model(target, "--tgt-lm"))
        return _stacked(prior_log_probs(lms, *texts, like=torch.zeros((), device=device), advance=advance))

    def conditional(checkpoint: Path, advance: Advance) -> np.ndarray:
        pair, task = load_pair(checkpoint, folder, source.language, target.language, device)
        return _stacked(conditional_log_probs(pair, task, *texts, advance=advance))

    def scored(name: str, title: str, files: list[Path], compute: Callable[[Advance], np.ndarray]) -> np.ndarray:
        digest = hashlib.sha256()
        for file, side in zip(files, (source, target), strict=True):
            digest.update(cache_key(str(file), side.dictionary, side.sentences).encode())
        path = run.folder / "report-cache" / f"{name}.{split}.{digest.hexdigest()[:32]}.npy"
        return _cached(path, f"{run.name}: {title}", 2 * len(source.sentences), compute)

    log_p = scored("lm", "language models", [source.language_model, target.language_model], prior)
    scores = {}
    for key, checkpoint in checkpoints.items():
        title = run.stages[key].name
        log_q = scored(key, title, [checkpoint] * 2, partial(conditional, checkpoint))
        forward, reverse = log_p + log_q
        finite = np.isfinite(forward) & np.isfinite(reverse)
        scores[key] = PairScores(forward[finite], reverse[finite])
    return scores


def _language_model(side: _Side, option: str) -> FrozenLanguageModel:
    return load_language_model(str(side.language_model), side.dictionary, side.language, option)


def _stacked(scores: tuple[Tensor, Tensor]) -> np.ndarray:
    """Two (N,) → (2, N)."""
    return torch.stack(scores).cpu().numpy()


def _sides(
    checkpoints: Sequence[Path], run: Run, split: str, pairs: int, data: Path | None
) -> tuple[Path, _Side, _Side]:
    """The data folder, and the languages as source and target of the run's own task."""
    # The last checkpoint is that of dual training, if it exists; the others may record no language models.
    last, *others = reversed(checkpoints)
    cfg, stage_folder = _configuration(last), last.parent
    languages = (cfg.task.source_lang, cfg.task.target_lang)
    folder = data or _recorded_data(cfg, last)
    prefix = folder and _binarized(folder, split, languages)
    for file in others if data is None and not prefix else ():
        # the text of a round has only training and validation data
        place = _recorded_data(_configuration(file), file)
        folder, prefix = folder or place, prefix or (place and _binarized(place, split, languages))
    if folder is None:
        raise UserError(f"the data, {cfg.task.data.split(os.pathsep)[0]}, are missing; name their new folder (--dest)")
    if not prefix:
        raise UserError(f"{folder}: has no binarized split '{split}' of {direction_name(*languages)}")
    data, sides = prefix.parent, []
    for language, recorded in zip(languages, (cfg.task.src_lm, cfg.task.tgt_lm), strict=True):
        own = RunFolder(run.folder).language_model(language).best
        lm = (find(recorded, cfg.checkpoint.save_dir, stage_folder) if recorded else None) or own
        if not lm.is_file():
            raise UserError(f"the language model of {language} ({recorded or 'none was used'}) is missing")
        dictionary = Dictionary.load(str(data / f"dict.{language}.txt"))
        text = data_utils.load_indexed_dataset(f"{prefix}.{language}", dictionary)
        chosen = np.unique(np.linspace(0, len(text) - 1, min(len(text), pairs)).round().astype(int))
        sides.append(_Side(language, dictionary, [text[int(i)] for i in chosen], lm))
    if len(sides[0].sentences) != len(sides[1].sentences):
        raise UserError(f"{data}: split '{split}' has different numbers of sentences in the two languages")
    return data, sides[0], sides[1]


def _configuration(checkpoint: Path) -> Any:
    return load_state(str(checkpoint), "checkpoint")["cfg"]


def _recorded_data(cfg: Any, checkpoint: Path) -> Path | None:
    """The data folder that a checkpoint was trained on; None if it is gone."""
    return find(cfg.task.data.split(os.pathsep)[0], cfg.checkpoint.save_dir, checkpoint.parent)


def _binarized(data: Path, split: str, languages: tuple[str, str]) -> Path | None:
    """The prefix of the files of a split; None if the folder does not have it."""
    folder = data / "dual" if (data / "dual").is_dir() else data
    names = (f"{split}.{direction_name(*order)}" for order in (languages, languages[::-1]))
    return next((folder / name for name in names if (folder / f"{name}.{languages[0]}.idx").is_file()), None)


def _cached(path: Path, title: str, total: int, compute: Callable[[Advance], np.ndarray]) -> np.ndarray:
    if path.is_file():
        return load_scores(path, (2, total // 2), "remove it, and it will be computed again")
    if not sys.stderr.isatty():
        say(f"Scoring {total // 2:,} sentence pairs, {title}")
    with Progress(f"Scoring, {title}", total) as progress:
        scores = compute(progress.update)
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as file:
            np.save(file, scores, allow_pickle=False)
    except (CannotWrite, OSError) as error:
        reason = error.reason if isinstance(error, CannotWrite) else error.strerror
        say(f"{path.parent}: cannot be written ({reason}); the scores are not kept")
    return scores
