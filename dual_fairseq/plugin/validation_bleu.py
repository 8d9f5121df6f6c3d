"""BLEU of both directions on validation data, by fairseq's own ``--eval-bleu``.

Each direction's fairseq task translates a batch and counts its n-grams. The counts are logged under the direction's
name and added up over batches and processes; the scores of the whole corpus follow from the sums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fairseq.logging import metrics
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationConfig

from ..common import bleu
from ..common.errors import UserError
from ..common.records import check_shape, parse_json


def detokenize_as_target(cfg: TranslationConfig) -> None:
    """Make validation detokenize for its own target language (fairseq's default is English for both).

    Raises:
        UserError: ``--eval-bleu-detok-args`` is no JSON.
    """
    try:
        args = parse_json(cfg.eval_bleu_detok_args or "{}")
        check_shape(args, {})
    except ValueError as error:
        raise UserError(
            f"--eval-bleu-detok-args {cfg.eval_bleu_detok_args[:60]}: {error}; give a JSON record, as '{{}}'"
        ) from error
    cfg.eval_bleu_detok_args = json.dumps({"source_lang": cfg.source_lang, "target_lang": cfg.target_lang, **args})


def bleu_counts(score: Any, direction: str) -> dict[str, int]:
    """What has to be added up over batches and processes for a corpus BLEU, entry by entry."""
    return dict(zip(_keys(direction), bleu.bleu_counts(score), strict=True))


def log_bleu(logging_outputs: Sequence[dict[str, Any]], directions: Sequence[str]) -> None:
    """Log ``bleu_<direction>`` of each direction and ``bleu``, their mean, where there are counts."""
    if not any(_keys(directions[0])[0] in log for log in logging_outputs):
        return
    for direction in directions:
        for key in _keys(direction):
            metrics.log_scalar(key, int(sum(log.get(key, 0) for log in logging_outputs)))
        metrics.log_derived(f"bleu_{direction}", lambda meters, d=direction: _score(meters, d))
    metrics.log_derived("bleu", lambda meters: round(sum(_score(meters, d) for d in directions) / len(directions), 2))


def _keys(direction: str) -> list[str]:
    counts = [f"_bleu_{kind}_{n}_{direction}" for kind in ("counts", "totals") for n in range(EVAL_BLEU_ORDER)]
    return [*counts, f"_bleu_sys_len_{direction}", f"_bleu_ref_len_{direction}"]


def _score(meters: Any, direction: str) -> float:
    return round(bleu.bleu_of_counts([int(meters[key].sum) for key in _keys(direction)]), 2)
