"""Dual inference: the translations of a beam search, re-scored by both models of the pair and both language models.

Xia et al., *Dual Inference for Machine Learning* (IJCAI 2017), rank by

    α · log P(y|x) + (1 − α) · [log P(x|y) + log P(y) − log P(x)],

where the bracket is log P(y|x) once more, by Bayes' rule. The noisy-channel form has free weights:

    log P(y|x) + w_reverse · log P(x|y) + w_lm · log P(y) + w_length · |y|.

Either is divided by |y|^lenpen, as fairseq divides the log P(y|x) of its beam search, so α = 1 is plain generation.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.modules import BeamableMM
from torch import Tensor, nn

from ..common.errors import UserError
from .language_model import FrozenLanguageModel
from .log_probs import BATCH_TOKENS, language_model_log_probs, translation_log_probs
from .model import parameter_like

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
        """Whether they leave the ranking to the beam search."""
        return self == Weights()

    def score(self, components: np.ndarray, lenpen: float) -> np.ndarray:
        """(..., 5) components in nats → (...,) scores in nats, divided by |y|^lenpen.

        A component of weight 0 does not count, whatever it is; one that could not be computed (NaN) makes the score −∞.
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
        UserError: they are out of range or do not go together.
    """
    free = {"reverse": reverse, "lm": lm, "length": length}
    given = {name: value for name, value in free.items() if value is not None}
    for name, value in given.items():
        if not math.isfinite(value):
            raise UserError(f"--dual-inference-{name}-weight {value}: give a finite number")
    if alpha is None:
        return Weights(**given) if given else None
    if given:
        options = ", ".join(f"--dual-inference-{name}-weight" for name in given)
        raise UserError(f"--dual-inference-alpha and {options}: give either α or the weights of the general form")
    if not 0 <= alpha <= 1:
        raise UserError(f"--dual-inference-alpha {alpha}: give a number from 0 to 1 (1 is plain generation)")
    return Weights.of_alpha(alpha)


@dataclass(frozen=True)
class Choice:
    """How to choose among translations: weights, the lenpen that goes with them, and the target language, if known."""

    weights: Weights
    lenpen: float | None = None
    language: str | None = None


def read_choice(given: str | float | os.PathLike[str]) -> Choice:
    """An α, or the best that is in a weights.json of ``dual-fairseq tune``.

    Raises:
        UserError: it is neither.
    """
    try:
        weights = weights_of_options(float(str(given)), None, None, None)
        assert weights is not None
        return Choice(weights)
    except ValueError:
        pass
    try:
        tuned = json.loads(Path(str(given)).read_text(encoding="utf-8"))
        row = tuned[tuned["best"]]
        return Choice(Weights(**row["weights"]), float(row["lenpen"]), tuned.get("target_lang"))
    except FileNotFoundError as error:
        raise UserError(f"{given}: is no number, and there is no such file; see dual-fairseq evaluate") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{given}: is not the weights.json of dual-fairseq tune ({error})") from error


class DualInferenceGenerator(nn.Module):
    """A fairseq generator whose hypotheses are re-scored and sorted anew.

    Hypotheses of all sentences of a batch are scored together, sorted by length; log P(x) is computed once a sentence.

    Args:
        generator: fairseq's, for source→target: it keeps the beam search and all of its options.
        reverse_models: the models of target→source.
        lms: of the source and of the target language; None where it is not to be had (its component is NaN).
        source_dictionary: of the source language.
        left_pad_source: as the models were trained.
        weights: of the components.
        lenpen: exponent of the length that scores are divided by.
    """

    def __init__(
        self,
        generator: Any,
        reverse_models: Sequence[Any],
        lms: tuple[FrozenLanguageModel | None, FrozenLanguageModel | None],
        source_dictionary: Dictionary,
        left_pad_source: bool,
        weights: Weights,
        lenpen: float,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.reverse_models = list(reverse_models)
        for model in self.reverse_models:
            model.eval()
            for module in model.modules():
                if isinstance(module, BeamableMM):  # takes a beam of rows to share their source; here each has its own
                    module.set_beam_size(None)
        self.lms = lms
        self.source_dictionary = source_dictionary
        self.left_pad_source = left_pad_source
        self.weights = weights
        self.lenpen = lenpen
        self.symbols_to_strip_from_output = getattr(generator, "symbols_to_strip_from_output", None) or {generator.eos}

    @torch.no_grad()
    def generate(self, models: Sequence[Any], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Any]]]:
        """As fairseq's generators: a list of hypotheses a sentence, best first.

        Each gets ``components``, (5,) float64 in nats (see :data:`COMPONENTS`), and as ``score`` the combination; with
        plain weights ``score`` and order stay those of the beam search.
        """
        finalized = self.generator.generate(models, sample, **kwargs)
        components = self._components(sample, finalized)
        for hypotheses, of_sentence in zip(finalized, components, strict=True):
            for hypothesis, of_hypothesis in zip(hypotheses, of_sentence, strict=True):
                hypothesis["components"] = of_hypothesis
            if not self.weights.plain:
                scores = self.weights.score(of_sentence, self.lenpen)
                order = np.argsort(-scores, kind="stable")
                for hypothesis, score in zip(hypotheses, scores, strict=True):
                    hypothesis["score"] = torch.tensor(score)
                hypotheses[:] = [hypotheses[i] for i in order]
        return finalized

    def _components(self, sample: dict[str, Any], finalized: list[list[dict[str, Any]]]) -> list[np.ndarray]:
        """(hypotheses, 5) nats for each sentence."""
        pad, like = self.source_dictionary.pad(), parameter_like(self.reverse_models[0])
        sources = [row[row.ne(pad)].cpu() for row in sample["net_input"]["src_tokens"]]
        sentence = [i for i, hypotheses in enumerate(finalized) for _ in hypotheses]
        if not sentence:
            return [np.zeros((0, len(COMPONENTS))) for _ in finalized]
        hypotheses = [hypothesis for of_sentence in finalized for hypothesis in of_sentence]
        targets = [hypothesis["tokens"].cpu() for hypothesis in hypotheses]
        # on a CPU, what counts is that a batch's logits stay near it
        size = 1024 if like.device.type == "cpu" else BATCH_TOKENS
        nan = torch.full((len(hypotheses),), float("nan"), device=like.device)
        source_lm, lm = self.lms
        of_source = nan
        if source_lm is not None:
            of_source = language_model_log_probs(source_lm, sources, like, size)[
                torch.as_tensor(sentence, device=like.device)
            ]
        columns = [
            torch.stack([h["positional_scores"].float().sum() for h in hypotheses]).to(like.device),
            translation_log_probs(
                self.reverse_models, targets, [sources[i] for i in sentence], self.source_dictionary,
                self.left_pad_source, size,
            ),
            nan if lm is None else language_model_log_probs(lm, targets, like, size),
            of_source,
        ]  # fmt: skip
        # one transfer from the device for all of them
        table = torch.stack(columns, dim=1).cpu().double().numpy()
        table = np.concatenate([table, np.array([[len(target)] for target in targets], dtype=np.float64)], axis=1)
        return np.split(table, np.cumsum([len(of_sentence) for of_sentence in finalized])[:-1])


class ComponentPrinter:
    """Prints the components of a batch's hypotheses, in the order of fairseq's H- lines, before these come.

    Args:
        dictionary: of the source language.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self._pad = dictionary.pad()
        self._output: TextIO = sys.stdout
        self._nbest = 1
        self._waiting: dict[tuple[int, ...], deque[int]] = {}  # numbers of the input's sentences
        self._next = 0

    def set_up(self, nbest: int, file: str | None) -> None:
        """How many hypotheses of a sentence fairseq prints, and the file to print to in place of stdout."""
        self._nbest = nbest
        if file is not None:
            self._output = open(file, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (until the end)

    def expect(self, sentences: Iterable[Tensor]) -> None:
        """Number the next sentences of ``fairseq-interactive``, whose batches do not say which sentences they hold."""
        for tokens in sentences:
            self._waiting.setdefault(self._key(tokens), deque()).append(self._next)
            self._next += 1

    def print(self, sample: dict[str, Any], hypotheses: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Print those of a batch. Of equal sentences of the input, the first is the one that came first."""
        if "id" in sample:
            numbers = sample["id"].tolist()
        else:
            numbers = [self._waiting[self._key(row)].popleft() for row in sample["net_input"]["src_tokens"]]
        for number, of_sentence in zip(numbers, hypotheses, strict=True):
            for hypothesis in of_sentence[: self._nbest]:
                print(component_line(number, hypothesis["components"]), file=self._output)

    def _key(self, tokens: Tensor) -> tuple[int, ...]:
        return tuple(tokens[tokens.ne(self._pad)].tolist())


def component_line(number: int, components: np.ndarray) -> str:
    """What is printed of a hypothesis' components: ``R-3``, then name=value, in base 2 as all that fairseq prints."""
    values = (*components[:-1] / math.log(2), components[-1])
    return "\t".join([f"R-{number}", *(f"{name}={value:.9g}" for name, value in zip(COMPONENTS, values, strict=True))])


def read_component_line(line: str) -> tuple[int, np.ndarray]:
    """The number of the sentence and the components of a hypothesis, (5,) in nats.

    Raises:
        ValueError: it is no such line.
    """
    head, *fields = line.rstrip("\n").split("\t")
    values = dict(field.split("=") for field in fields)
    components = np.array([float(values[name]) for name in COMPONENTS])
    components[:-1] *= math.log(2)
    return int(head.removeprefix("R-")), components
