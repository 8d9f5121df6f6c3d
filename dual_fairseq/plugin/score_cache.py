"""log P(x) and log P(y) of a data set, computed once.

The language models are frozen, so their scores of a training pair never change. One file per split and language keeps
them: float32, one number per sentence, memory-mapped. Its name has a digest of everything that the scores depend on
(language model, dictionary, sentences), so that an old file is never used by mistake. A file gets its name when it is
complete: neither a crash nor two runs at once can leave an incomplete file under that name.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.distributed as dist
from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset

from ..common.errors import UserError, first_line
from ..common.files import CannotWrite, sha256, whole_file, write_json
from ..common.progress import Progress
from ..common.records import read_record
from .checkpoint import dictionary_digests
from .language_model import FrozenLanguageModel
from .log_probs import length_sorted_batches

logger = logging.getLogger(__name__)

_FORMAT = b"dual_fairseq language model scores 1"
_BATCH_TOKENS = 16_384
_BLOCK = 1 << 20
# What numpy raises: the header of a file is Python text and may name any shape.
_UNREADABLE = (
    OSError, ValueError, TypeError, OverflowError, MemoryError, RecursionError, EOFError, BadZipFile, SyntaxError,
    TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class CachedScores:
    """The scores of one language's side of a data set.

    Args:
        log_probs: (N,) float32 in nats, sentence i of the data set at i; NaN if a sentence is too long for the LM.
        max_positions: the longest sentence that the language model scores, in tokens.
    """

    log_probs: np.ndarray
    max_positions: int


class ScoreCache:
    """A directory of score files.

    Args:
        directory: made if it is missing; all nodes of a run must share it. If it has all scores, it need not be
            writable.
        cpu: compute on the CPU even if there is a GPU.
    """

    def __init__(self, directory: str, cpu: bool) -> None:
        self.directory = Path(directory)
        self.device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")

    def scores(
        self,
        sentences: Any,
        sizes: np.ndarray,
        dictionary: Dictionary,
        lm_path: str,
        load: Callable[[], FrozenLanguageModel],
        name: str,
    ) -> CachedScores:
        """The scores of ``sentences``, read if they are cached, else computed by all processes of the run together.

        Args:
            sentences: N token tensors, each ending in ``</s>``.
            sizes: (N,) their lengths in tokens.
            dictionary: of their language.
            lm_path: the language model's checkpoint; if all scores are cached, it is only hashed.
            load: loads the language model.
            name: split and language, for file names and messages.

        Raises:
            UserError: the language model cannot be read, the directory cannot be made or written to, or a file in it
                is damaged.
        """
        path = self.directory / f"{name}.{cache_key(lm_path, dictionary, sentences)}.npy"
        cached = _agree(path.is_file())
        if not cached:
            self._compute(path, sentences, sizes, dictionary, load, name)
        scores = read_cache(path, np.asarray(sizes))
        if cached:
            logger.info("%s: language model scores of %s read", path, name)
        return scores

    def _compute(self, path: Path, sentences, sizes, dictionary: Dictionary, load, name: str) -> None:
        try:  # checked before hours of work
            self.directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.directory).close()
        except OSError as error:
            raise _cannot_use(self.directory, str(error.strerror)) from error
        lm = load()
        limit = int(min(lm.max_positions, np.iinfo(np.int64).max))
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        log_probs = np.zeros(len(sentences), dtype=np.float32)
        too_long = np.asarray(sizes) > limit
        log_probs[too_long] = np.nan if rank == 0 else 0.0
        like = torch.zeros((), device=self.device)
        batches = list(length_sorted_batches(np.where(too_long, 0, sizes), _BATCH_TOKENS))[rank::world]
        total = sum(len(batch) for batch in batches)
        title = f"LM scores of {name}"
        share = f" (this process's share; there are {world})" if world > 1 else ""

        def tell(_: str) -> None:
            logger.info("%s: %s of %s%s", title, f"{progress.done:,}", f"{total:,}", share)

        if rank == 0:
            logger.info("%s: %s sentences to score", title, f"{len(sentences):,}")
        with Progress(title, total, shown=rank == 0, tell=tell) as progress:
            for batch in batches:
                tokens = data_utils.collate_tokens([sentences[i] for i in batch], dictionary.pad())
                log_probs[batch] = lm.sentence_log_prob(tokens.long().to(self.device), like).cpu().numpy()
                progress.update(len(batch))
        if world > 1:
            _sum_over_processes(log_probs, self.device)
        if rank == 0:
            try:
                write_json(path.with_suffix(".json"), {"max_positions": limit})
                with whole_file(path) as file:
                    np.save(file, log_probs, allow_pickle=False)
            except CannotWrite as error:
                raise _cannot_use(self.directory, error.reason) from error
        if world > 1:
            dist.barrier()


def read_cache(path: Path, sizes: np.ndarray) -> CachedScores:
    """The scores of one language's side of a data set, from the file and the record beside it.

    Args:
        path: the file.
        sizes: (N,) the sentences' lengths in tokens.

    Raises:
        UserError: it is not a file of :meth:`ScoreCache.scores`.
    """
    fix = "remove it, and it will be computed again"
    limit = read_record(path.with_suffix(".json"), {"max_positions": int}, fix)["max_positions"]
    log_probs = load_scores(path, sizes.shape, fix, mmap_mode="r")
    if not np.array_equal(np.isfinite(log_probs), sizes <= limit) or np.isinf(log_probs).any():
        raise UserError(
            f"{path}: holds scores that are not finite; {fix}. If this does not help, use another language model"
        )
    return CachedScores(log_probs, limit)


def load_scores(path: Path, shape: tuple[int, ...], fix: str, mmap_mode: Any = None) -> np.ndarray:
    """The float32 numbers in a file.

    Raises:
        UserError: it holds something else; ``fix`` says what to do.
    """
    try:
        scores = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {fix}") from error
    if not isinstance(scores, np.ndarray):
        raise UserError(f"{path}: holds an archive, not an array; {fix}")
    if scores.dtype != np.float32 or scores.shape != shape:
        raise UserError(f"{path}: holds {scores.dtype} {scores.shape}, not float32 {shape}; {fix}")
    return scores


def cache_key(lm_path: str, dictionary: Dictionary, sentences: Any) -> str:
    """A digest of everything that the scores depend on: language model, dictionary, sentences."""
    parts = [sha256(lm_path), *dictionary_digests({"": dictionary}).values(), *_sentence_digests(sentences)]
    return hashlib.sha256(_FORMAT + bytes.fromhex("".join(parts))).hexdigest()[:32]


def _sentence_digests(sentences: Any) -> list[str]:
    """Digests of the sentences: of fairseq's memory-mapped files as they are on disk, else of all tokens."""
    if isinstance(sentences, MMapIndexedDataset):
        return [sha256(sentences._path + suffix) for suffix in (".idx", ".bin")]
    digest = hashlib.sha256()
    for i in range(len(sentences)):
        digest.update(np.asarray(sentences[i], dtype=np.int64).tobytes() + b"\n")
    return [digest.hexdigest()]


def _agree(found: bool) -> bool:
    """Whether every process sees the file: if one must compute, all do."""
    if not dist.is_initialized():
        return found
    votes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(votes, found)
    return all(votes)


def _sum_over_processes(values: np.ndarray, device: torch.device) -> None:
    """Add up the processes' parts in place; each sentence is 0 in all parts except one."""
    for start in range(0, len(values), _BLOCK):
        block = torch.from_numpy(values[start : start + _BLOCK]).to(device)
        dist.all_reduce(block)
        values[start : start + _BLOCK] = block.cpu().numpy()


def _cannot_use(directory: Path, reason: str) -> UserError:
    return UserError(f"--lm-score-cache {directory}: cannot be used ({reason}); fix that or choose another")
