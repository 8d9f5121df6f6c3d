"""The ranking of translations by dual inference: components of a score, their weights, and both as text.

Xia et al., *Dual Inference for Machine Learning* (IJCAI 2017), rank by

    α · log P(y|x) + (1 − α) · [log P(x|y) + log P(y) − log P(x)],

where the bracket is also log P(y|x), by Bayes' rule. The noisy-channel form has free weights:

    log P(y|x) + w_reverse · log P(x|y) + w_lm · log P(y) + w_length · |y|.

Both are divided by |y|^lenpen, like log P(y|x) in fairseq's beam search, so α = 1 is plain generation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..common.records import check_shape, read_record

LARGEST = 1e15  # limit of a score or a count in a file
# log P(y|x), log P(x|y), log P(y), log P(x), |y|: the columns of every array of components
COMPONENTS = ("forward", "reverse", "lm", "source_lm", "length")


@dataclass(frozen=True)
class Weights:
    """The weight of each of :data:`COMPONENTS` in a translation's score."""

    forward: float = 1.0
    reverse: float = 0.0
    lm: float = 0.0
    source_lm: float = 0.0
    length: float = 0.0

    @classmethod
    def of_alpha(cls, alpha: float) -> Weights:
        """The formula of Xia et al. (2017); α = 1 is plain generation."""
        return cls(alpha, 1 - alpha, 1 - alpha, alpha - 1)

    @property
    def plain(self) -> bool:
        """Whether they keep the ranking of the beam search."""
        return self == Weights()

    def score(self, components: np.ndarray, lenpen: float) -> np.ndarray:
        """(..., 5) components in nats → (...,) scores in nats, divided by |y|^lenpen.

        A component of weight 0 does not count, even if it is NaN; any other NaN (not computed) makes the score −∞.
        """
        total = np.zeros(components.shape[:-1])
        for i, name in enumerate(COMPONENTS):
            if weight := getattr(self, name):
                total = total + weight * components[..., i]
        return np.where(np.isnan(total), -np.inf, total / components[..., -1] ** lenpen)


def weights_of_options(
    alpha: float | None, reverse: float | None, lm: float | None, length: float | None
) -> Weights | None:
    """The weights that the ``--dual-inference-*`` options ask for; None if none is given.

    Raises:
        UserError: they are out of range or contradict each other.
    """
    free = {"reverse": reverse, "lm": lm, "length": length}
    weights = {name: value for name, value in free.items() if value is not None}
    for name, value in weights.items():
        if not math.isfinite(value):
            raise UserError(f"--dual-inference-{name}-weight {value}: give a finite number")
    if alpha is None:
        return Weights(**weights) if weights else None
    if weights:
        options = ", ".join(f"--dual-inference-{name}-weight" for name in weights)
        raise UserError(f"--dual-inference-alpha and {options}: give either α or the weights of the general form")
    return _weights_of_alpha(alpha, f"--dual-inference-alpha {alpha}: give a number")


def _weights_of_alpha(alpha: float, request: str) -> Weights:
    """The weights of α; raises UserError, which begins with ``request``, if α is out of range."""
    if not 0 <= alpha <= 1:
        raise UserError(f"{request} from 0 to 1 (1 is plain generation)")
    return Weights.of_alpha(alpha)


Weighting = float | str | os.PathLike[str]  # α, or a weights.json


@dataclass(frozen=True)
class Choice:
    """How to choose among translations: weights, the lenpen that goes with them, and the target language, if known."""

    weights: Weights
    lenpen: float | None = None
    language: str | None = None


def read_choice(given: Weighting, form: str | None = None) -> Choice:
    """The choice by α, or one in a weights.json of ``dual-fairseq tune``.

    Args:
        given: α or the file.
        form: the name of the choice in the file; None is the best one.

    Raises:
        UserError: it is neither of them.
    """
    try:
        alpha = float(str(given))
    except ValueError:
        pass
    else:
        return Choice(_weights_of_alpha(alpha, f"dual inference {given}: give α"))
    if not (path := Path(str(given))).exists():
        raise UserError(f"{given}: is neither a number nor a file; dual-fairseq evaluate writes one")
    wrong, fix = "is not the weights.json of dual-fairseq tune", "give α from 0 to 1, or such a file"
    tuned = read_record(path, {"best": str, "target_lang?": (None, str)}, fix, wrong)
    names = {field.name: float for field in fields(Weights)}
    form = form or tuned["best"]
    row = tuned.get(form)
    try:
        check_shape(row, {"weights": names, "lenpen": float}, form)
    except ValueError as error:
        raise UserError(f"{given}: {wrong} ({error}); {fix}") from error
    if unknown := row["weights"].keys() - names:
        raise UserError(f"{given}: {wrong} (there is no weight of {', '.join(sorted(unknown))}); {fix}")
    return Choice(Weights(**row["weights"]), float(row["lenpen"]), tuned.get("target_lang"))


def choices_by_language(
    given: Weighting | Mapping[str, Weighting | None], languages: Sequence[str]
) -> dict[str, Choice | None]:
    """The choices among translations into each language.

    Args:
        given: what :func:`read_choice` reads, for both languages or for each target language; None is plain search.
        languages: of the pair.

    Returns:
        Target language → choice; translations into another language are to be refused.

    Raises:
        UserError: ``given`` cannot be read, or is for translations into another language.
    """
    if isinstance(given, Mapping):
        choices = {into: None if weights is None else read_choice(weights) for into, weights in given.items()}
    else:
        choice = read_choice(given)
        choices = dict.fromkeys(languages if choice.language is None else [choice.language], choice)
    for into, one in choices.items():
        if into not in languages:
            raise UserError(f"dual_inference: {into} is not a language of this pair ({' and '.join(languages)})")
        if one is not None and one.language not in (None, into):
            raise UserError(f"dual_inference for {into}: its weights were tuned for translations into {one.language}")
    return choices


def component_line(number: int, components: np.ndarray) -> str:
    """The printed line of a hypothesis' components: ``R-3``, then name=value, in base 2 like all output of fairseq."""
    values = (*components[:-1] / math.log(2), components[-1])
    return "\t".join([f"R-{number}", *(f"{name}={value:.9g}" for name, value in zip(COMPONENTS, values, strict=True))])


def read_component_line(line: str) -> tuple[int, np.ndarray]:
    """The sentence number and the components of a hypothesis, (5,) in nats.

    Raises:
        ValueError: it is not such a line.
    """
    head, *fields = line.rstrip("\n").split("\t")
    values = dict(field.split("=") for field in fields)
    components = np.array([float(values[name]) for name in COMPONENTS])
    # NaN, a component not computed, is allowed
    if not 1 <= components[-1] < LARGEST or (components > LARGEST).any():
        raise ValueError("a component is out of range")
    components[:-1] *= math.log(2)
    return sentence_number(head), components


def sentence_number(head: str) -> int:
    """The number in ``H-3`` or ``R-3``.

    Raises:
        ValueError: there is none.
    """
    if not head[2:].isdecimal():
        raise ValueError(f"{head}: names no sentence")
    return int(head[2:])
