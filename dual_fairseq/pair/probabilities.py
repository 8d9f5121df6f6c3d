"""The four log-probabilities of parallel text by a pair and its language models, and the gap between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..plugin.duality import duality_gap
from ..plugin.language_model import FrozenLanguageModel
from ..plugin.log_probs import BATCH_TOKENS, language_model_log_probs, translation_log_probs
from ..plugin.model import DualModel, parameter_like
from ..plugin.task import DualTranslationTask
from .engine import Advance, CTranslate2

LanguageModels = tuple[FrozenLanguageModel, FrozenLanguageModel]


def conditional_log_probs(
    pair: DualModel,
    task: DualTranslationTask,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    max_tokens: int = BATCH_TOKENS,
    advance: Advance = lambda count: None,
    engine: CTranslate2 | None = None,
) -> tuple[Tensor, Tensor]:
    """log P(y|x) and log P(x|y) of N sentence pairs; see :func:`score_pairs`.

    Returns:
        Two (N,) float32 in nats, on the pair's device; NaN if a sentence is too long for its model.
    """
    forward, reverse = task.directions

    def translation(direction: str, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        if engine is not None:
            return engine.translation_log_probs(direction, x, y, advance)
        side, models = task.sides[direction], [pair.models[direction]]
        left_pad = side.cfg.left_pad_source
        return translation_log_probs(models, x, y, side.target_dictionary, left_pad, max_tokens, advance)

    return translation(forward, sources, targets), translation(reverse, targets, sources)


def prior_log_probs(
    language_models: LanguageModels,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    like: Tensor,
    max_tokens: int = BATCH_TOKENS,
    advance: Advance = lambda count: None,
    engine: CTranslate2 | None = None,
) -> tuple[Tensor, Tensor]:
    """log P(x) and log P(y) of N sentence pairs; see :func:`score_pairs`.

    Args:
        like: a tensor with the device and floating type for the language models.

    Returns:
        Two (N,) float32 in nats, on the device of ``like``; NaN if a sentence is too long for its language model.
    """
    score = language_model_log_probs if engine is None else engine.language_model_log_probs
    x, y = (
        score(lm, sentences, like, max_tokens, advance)
        for lm, sentences in zip(language_models, (sources, targets), strict=True)
    )
    return x, y


def score_pairs(
    pair: DualModel,
    task: DualTranslationTask,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    language_models: LanguageModels | None = None,
    max_tokens: int = BATCH_TOKENS,
    advance: Advance = lambda count: None,
    engine: CTranslate2 | None = None,
) -> dict[str, np.ndarray]:
    """The log-probabilities of sentence pairs (x, y), ``</s>`` included, and their gap.

    Args:
        pair, task: from :func:`~dual_fairseq.pair.load.load_pair`; x is in the task's source language.
        sources, targets: N token tensors each, ending in ``</s>``; empty tensors are not scored.
        language_models: of the source and of the target language.
        max_tokens: padded tokens in a batch.
        advance: called with the number of sentences after each batch. The text is read twice, or four times with
            language models.
        engine: runs the models instead of PyTorch.

    Returns:
        ``CONDITIONALS`` of :mod:`~dual_fairseq.pair.score_table`, and with language models all of ``LOG_PROBS`` and
        ``gap``, each (N,) float64 in nats; NaN if a sentence is too long for the model.
    """
    y_given_x, x_given_y = conditional_log_probs(pair, task, sources, targets, max_tokens, advance, engine)
    scores = {"log_p_y_given_x": y_given_x, "log_p_x_given_y": x_given_y}
    if language_models is not None:
        x, y = prior_log_probs(language_models, sources, targets, parameter_like(pair), max_tokens, advance, engine)
        gap = duality_gap(x.double(), y_given_x.double(), y.double(), x_given_y.double())
        scores |= {"log_p_x": x, "log_p_y": y, "gap": gap}
    return {name: score.double().cpu().numpy() for name, score in scores.items()}
