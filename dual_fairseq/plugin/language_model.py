"""Frozen fairseq language models: load, check, score."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqLanguageModel
from fairseq.models.transformer_lm import TransformerLanguageModel
from fairseq.tasks.language_modeling import LanguageModelingTask
from torch import Tensor

from ..common.errors import UserError
from ..common.folders import RunFolder
from .checkpoint import check_dictionary, data_directories, load_state, load_weights, task_name
from .output_layer import batch_log_probs

logger = logging.getLogger(__name__)


class FrozenLanguageModel:
    """A trained fairseq language model that only scores sentences.

    Deliberately not a :class:`torch.nn.Module`: a criterion's sub-modules go to the optimizer, DistributedDataParallel
    and every checkpoint, and none of the three may see a language model.

    Args:
        model: a fairseq language model.
        dictionary: the dictionary of its language.
        bos: whether it was trained with ``--add-bos-token``, that is with ``<s>`` before every sentence's ``</s>``.
        path: its checkpoint, if it was read from one.
    """

    def __init__(
        self, model: FairseqLanguageModel, dictionary: Dictionary, bos: bool = False, path: str | None = None
    ) -> None:
        self.dictionary = dictionary
        self.bos = bos
        self.path = path
        self._model = model.requires_grad_(False).eval()

    @property
    def transformer(self) -> bool:
        """Whether the arch is fairseq's Transformer."""
        return isinstance(self._model, TransformerLanguageModel)

    @property
    def max_positions(self) -> float:
        """The longest sentence it can score, in tokens."""
        return self._model.max_positions() - self.bos

    @torch.no_grad()
    def token_log_probs(self, tokens: Tensor, like: Tensor) -> Tensor:
        """log P(token_t | tokens before it), for each sentence alone.

        Args:
            tokens: (B, T) sentences, each ending in ``</s>``, right-padded.
            like: a tensor with the device and floating type to use (a parameter of the model in training).

        Returns:
            (B, T) nats, float32; 0 at padding.
        """
        self._model.to(device=like.device, dtype=like.dtype)
        first = tokens.new_full((tokens.size(0), 1), self.dictionary.eos())
        # </s> in the middle of a row precedes padding; no real token follows it
        previous, target = torch.cat([first, tokens[:, :-1]], dim=1), tokens
        if self.bos:  # the model learnt to predict <s> from <s>, and the first token from </s>
            bos = first.fill_(self.dictionary.bos())
            previous, target = torch.cat([bos, previous], dim=1), torch.cat([bos, target], dim=1)
        sample = {"net_input": {"src_tokens": previous}, "target": target}
        log_prob = batch_log_probs(self._model, sample, self.dictionary.pad()).log_prob
        log_prob = log_prob[:, int(self.bos) :]
        return log_prob.masked_fill(tokens.eq(self.dictionary.pad()), 0.0)

    def sentence_log_prob(self, tokens: Tensor, like: Tensor) -> Tensor:
        """log P(sentence), ``</s>`` included: (B, T) tokens → (B,) nats, float32."""
        return self.token_log_probs(tokens, like).sum(dim=-1)


def find_language_model(language: str, recorded: str | None, checkpoint: str | None) -> str | None:
    """The file of a language model that belongs to a pair's checkpoint.

    Args:
        language: language code.
        recorded: the file that the checkpoint names, if any.
        checkpoint: its file; a run of ``dual-fairseq train`` has ``lm/<language>`` beside its folder.

    Returns:
        The first of these files that exists, or None.
    """
    candidates = [Path(recorded)] if recorded else []
    if checkpoint:
        candidates.append(RunFolder.of(checkpoint).language_model(language).best)
    return next((str(path) for path in candidates if path.is_file()), None)


def load_language_model(path: str, dictionary: Dictionary, language: str, option: str) -> FrozenLanguageModel:
    """Load a fairseq language model over the pair's own dictionary.

    The data directory recorded in the checkpoint is not needed (it may be gone), but a ``dict.txt`` beside the
    checkpoint or in that directory is compared with ``dictionary`` symbol by symbol.

    Args:
        path: checkpoint of ``fairseq-train --task language_modeling``.
        dictionary: the pair's dictionary of this language.
        language: language code, for messages.
        option: ``--src-lm`` or ``--tgt-lm``, for messages.

    Raises:
        UserError: the file is missing, unreadable, no left-to-right language model, or has another dictionary.
    """
    state = load_state(path, option)
    cfg = state["cfg"]
    name = task_name(state)
    if name not in ("language_modeling", "language_modeling_running_text"):
        raise UserError(
            f"{option} {path}: is a checkpoint of --task {name}, not a language model; train one with "
            "dual-fairseq train-lm or fairseq-train --user-dir dual_fairseq --task language_modeling"
        )
    if _targets(cfg.task) != ["future"]:
        raise UserError(f"{option} {path}: does not predict the next token only; train it without --self/--past-target")
    if getattr(cfg.task, "output_dictionary_size", -1) >= 0:
        raise UserError(
            f"{option} {path}: its output dictionary was cut by --output-dictionary-size, so it cannot score every "
            "token; train it without that option"
        )

    _check_dictionary(state, dictionary, language, path, option)
    if getattr(cfg.task, "sample_break_mode", None) != "eos":
        logger.warning(
            "%s %s was trained with --sample-break-mode %s (on running text, if by train-lm); dual training "
            "scores single sentences; --sample-break-mode eos is better for this",
            option, path, getattr(cfg.task, "sample_break_mode", "none"),
        )  # fmt: skip

    task = LanguageModelingTask(cfg.task, dictionary)
    model = task.build_model(copy.deepcopy(cfg.model), from_checkpoint=True)
    load_weights(model, state["model"], cfg.model, path, option, f"the data's dictionary of {language}")
    logger.info("%s: language model of %s (%s), frozen", path, language, type(model).__name__)
    return FrozenLanguageModel(model, dictionary, getattr(cfg.task, "add_bos_token", False), path)


def _targets(task_cfg: Any) -> list[str]:
    targets = [name for name in ("self", "future", "past") if getattr(task_cfg, f"{name}_target", False)]
    return targets or ["future"]


def _check_dictionary(state: dict[str, Any], dictionary: Dictionary, language: str, path: str, option: str) -> None:
    sizes = {
        len(value)
        for key, value in state["model"].items()
        if key in ("decoder.embed_tokens.weight", "decoder.output_projection.weight", "decoder.counts")
    }
    if sizes and sizes != {len(dictionary)}:
        raise UserError(
            f"{option} {path}: has {sizes.pop()} symbols, but the data's dictionary of {language} has "
            f"{len(dictionary)}; it belongs to another language or to another preprocessing"
        )
    directories = [Path(path).parent, *data_directories(state["cfg"].task)]
    if not check_dictionary(dictionary, language, None, directories, path, option, "dict.txt"):
        logger.warning(
            "%s %s: no dict.txt beside it or in the data directory it was trained on, so only the number of symbols "
            "could be compared with the data's dictionary of %s",
            option, path, language,
        )  # fmt: skip
