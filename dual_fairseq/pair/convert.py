"""Models of a pair and language models for CTranslate2.

Each model is converted once, from the output of ``dual-fairseq export``, and kept under a digest of the checkpoint and
its dictionaries. It is kept in the user's cache, because CTranslate2 must not read files from a stranger's run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor

from ..common.files import sha256
from ..plugin.checkpoint import dictionary_digests, load_state
from ..plugin.finished import arch_options, plain, write_checkpoint
from ..plugin.generator import DirectionTask
from ..plugin.language_model import FrozenLanguageModel
from ..plugin.log_probs import language_model_log_probs, translation_log_probs
from ..plugin.model import arch_name, direction_name, parameter_like
from ..plugin.task import DualTranslationTask
from .export import export_state, single_state

_PROBES = (1, 2, 3, 5, 8, 13)  # tokens in the sentences that compare a converted model with its original
_KEPT_UNUSED = 90 * 24 * 3600.0  # seconds
_temporary: list[tempfile.TemporaryDirectory] = []  # until the process ends


class CannotConvert(Exception):
    """CTranslate2 cannot run the model. The message says why; its subject is "CTranslate2"."""


def words(sentences: Sequence[Tensor], dictionary: Dictionary) -> list[list[str]]:
    """Sentences as CTranslate2's input: their tokens as text, without ``</s>``."""
    symbols = dictionary.symbols
    return [[symbols[i] for i in sentence[:-1].tolist()] for sentence in sentences]


def words_of_language_model(lm: FrozenLanguageModel, sentences: Sequence[Tensor]) -> list[list[str]]:
    """The same for a language model: with ``</s>``, and with the model's first tokens. A sentence of T tokens
    gives ``lm.bos`` + T log-probabilities."""
    symbols = lm.dictionary.symbols
    before = [symbols[lm.dictionary.bos()]] * lm.bos + [symbols[lm.dictionary.eos()]]
    return [[*before, *(symbols[i] for i in sentence.tolist())] for sentence in sentences]


def directions_of(model: Any, task: DirectionTask) -> dict[str, tuple[Any, DirectionTask]]:
    """Direction → (plain model, its task): two of a pair, else one.

    Args:
        model, task: from :func:`~dual_fairseq.pair.load.load_model`.
    """
    if isinstance(task, DualTranslationTask):
        return {direction: (model.models[direction], side) for direction, side in task.sides.items()}
    return {direction_name(task.cfg.source_lang, task.cfg.target_lang): (model, task)}


def converted_pair(pair: Any, task: DirectionTask, checkpoint: Path) -> Path:
    """The folder with one CTranslate2 model per direction, named after the direction.

    Args:
        pair, task: from :func:`~dual_fairseq.pair.load.load_model`.
        checkpoint: the file of the pair or of the single model.

    Raises:
        CannotConvert: CTranslate2 does not know the arch or one of its options.
    """
    directions = directions_of(pair, task)
    if not all(isinstance(model, TransformerModelBase) for model, _ in directions.values()):
        raise CannotConvert("runs Transformers only")
    dictionaries = task.dictionaries

    def convert(folder: Path) -> None:
        path = os.fspath(checkpoint)
        state = load_state(path, "checkpoint")
        _save(dictionaries, folder)
        for direction, (model, side) in directions.items():
            if model is pair:
                exported = single_state(state, side.cfg.source_lang, side.cfg.target_lang, state["model"])
            else:
                exported = export_state(state, direction, path)
            translator = _convert(exported, folder, folder / direction, "Translator")
            x, y = _probe(side.source_dictionary), _probe(side.target_dictionary)
            scores = translator.score_batch(words(x, side.source_dictionary), words(y, side.target_dictionary))
            expected = translation_log_probs([model], x, y, side.target_dictionary, side.cfg.left_pad_source)
            _compare(scores, expected, parameter_like(model))

    return _kept(checkpoint, dictionaries, convert)


def converted_language_model(lm: FrozenLanguageModel) -> Path:
    """The folder of a language model for CTranslate2.

    Raises:
        CannotConvert: CTranslate2 does not know the arch or one of its options.
    """
    if lm.path is None or not lm.transformer:
        raise CannotConvert("runs Transformers only")
    path = lm.path

    def convert(folder: Path) -> None:
        state = load_state(path, "checkpoint")
        model_cfg, task_cfg = state["cfg"].model, state["cfg"].task
        kept = ("sample_break_mode", "tokens_per_sample", "add_bos_token")
        options = {
            **arch_options(model_cfg),
            **{name: plain(getattr(task_cfg, name), name) for name in kept},
            "arch": arch_name(model_cfg), "task": "language_modeling", "data": ".",
            "max_target_positions": int(lm.max_positions + lm.bos),
        }  # fmt: skip
        _save({"": lm.dictionary}, folder)
        generator = _convert(
            {"args": Namespace(**options), "model": state["model"]}, folder, folder / "model", "Generator"
        )
        text = _probe(lm.dictionary)
        scores, like = generator.score_batch(words_of_language_model(lm, text)), torch.zeros(())
        _compare(scores, language_model_log_probs(lm, text, like), like, int(lm.bos))

    return _kept(Path(path), {"": lm.dictionary}, convert) / "model"


def _cache() -> Path:
    """The folder of all converted models. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dual-fairseq" / "ctranslate2"


def _save(dictionaries: Mapping[str, Dictionary], folder: Path) -> None:
    for language, dictionary in dictionaries.items():
        dictionary.save(str(folder / f"dict{language and '.'}{language}.txt"))


def _kept(checkpoint: Path, dictionaries: dict[str, Dictionary], convert: Callable[[Path], None]) -> Path:
    """The folder of a converted checkpoint. If there is none, it is made now, whole or not at all."""
    content = [sha256(checkpoint), *map(str, sorted(dictionary_digests(dictionaries).items()))]
    folder = _cache() / hashlib.sha256("\n".join(content).encode()).hexdigest()[:32]
    if folder.is_dir():
        with suppress(OSError):
            os.utime(folder)
        return folder
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = tempfile.TemporaryDirectory(prefix=".new.", dir=folder.parent)
    except OSError:  # the cache is not writable
        new = tempfile.TemporaryDirectory(prefix="dual-fairseq.")
        _temporary.append(new)
        convert(Path(new.name))
        return Path(new.name)
    with new:
        (Path(new.name) / folder.name).mkdir()
        convert(Path(new.name) / folder.name)
        if not folder.is_dir():
            os.replace(Path(new.name) / folder.name, folder)
    for other in folder.parent.iterdir():
        with suppress(OSError):  # another process has removed it
            if time.time() - other.stat().st_mtime > _KEPT_UNUSED:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def _convert(exported: dict[str, Any], dictionaries: Path, output: Path, kind: str) -> Any:
    """Write an exported checkpoint as a CTranslate2 model, and load it in float32 on the CPU.

    Args:
        exported: the checkpoint.
        dictionaries: the folder with its dictionaries.
        output: the folder to write.
        kind: ``Translator`` or ``Generator``.

    Raises:
        CannotConvert: CTranslate2's converter refuses it.
    """
    import ctranslate2
    from ctranslate2.converters import FairseqConverter

    file = output.with_suffix(".pt")
    write_checkpoint(exported, file)
    try:
        FairseqConverter(str(file), str(dictionaries)).convert(str(output))
        return getattr(ctranslate2, kind)(str(output), compute_type="float32", intra_threads=1)
    except Exception as error:  # of any kind: the converter reads weights before it checks all options
        detail = " ".join(str(error).split()) or type(error).__name__
        raise CannotConvert(f"does not know this model ({detail})") from error
    finally:
        file.unlink()


def _probe(dictionary: Dictionary) -> list[Tensor]:
    """Some sentences of random tokens."""
    random = torch.Generator().manual_seed(1)
    first, eos = dictionary.nspecial, torch.tensor([dictionary.eos()])
    return [torch.cat([torch.randint(first, len(dictionary), (length,), generator=random), eos]) for length in _PROBES]


def _compare(found: Sequence[Any], expected: Tensor, like: Tensor, skip: int = 0) -> None:
    """Raises CannotConvert if the converted model has other log-probabilities, so it lacks a part of the arch."""
    tolerance = 1e-3 if like.dtype == torch.float32 else 0.02  # of log P
    for result, log_prob in zip(found, expected.tolist(), strict=True):
        if not abs(sum(result.log_probs[skip:]) - log_prob) <= tolerance * max(1.0, abs(log_prob)):
            raise CannotConvert("computes other log-probabilities than fairseq with this model")
