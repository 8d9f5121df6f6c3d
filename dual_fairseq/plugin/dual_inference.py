"""Dual inference: the translations of a beam search, re-scored by both models of the pair and both language models.

:mod:`.ranking` decides which translation is best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.modules import BeamableMM
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.options import flag
from .language_model import FrozenLanguageModel
from .log_probs import BATCH_TOKENS, language_model_log_probs, translation_log_probs
from .model import parameter_like
from .ranking import COMPONENTS, Weights

# Generation options that can change the beam's scores from log P(y|x), and the values that do not.
_IMPURE: dict[str, list[object]] = {
    "unkpen": [0], "temperature": [1], "lm_path": [], "diverse_beam_groups": [-1], "diversity_rate": [-1, 0],
    "match_source_len": [False],
}  # fmt: skip


def check_pure(generation: Any) -> None:
    """Raises UserError if a generation option changes the beam's scores from log P(y|x)."""
    for name, neutral in _IMPURE.items():
        if (value := getattr(generation, name, None)) not in (*neutral, None):
            given = flag(name) + f" {value}" * (value is not True)
            raise UserError(
                f"{given}: changes the beam's scores, which dual inference takes for log P(y|x); leave it out"
            )


class DualInferenceGenerator(nn.Module):
    """A fairseq generator whose hypotheses are re-scored and sorted again.

    All hypotheses of a batch are scored together, sorted by length; log P(x) is computed once per sentence.

    Args:
        generator: fairseq's, for source→target: it keeps the beam search and all of its options.
        reverse_models: the models of target→source.
        lms: of the source and of the target language; None if there is none (its component is then NaN).
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
                if isinstance(module, BeamableMM):  # assumes that a beam's rows share a source; here each has its own
                    module.set_beam_size(None)
        self.lms = lms
        self.source_dictionary = source_dictionary
        self.left_pad_source = left_pad_source
        self.weights = weights
        self.lenpen = lenpen
        self.symbols_to_strip_from_output = getattr(generator, "symbols_to_strip_from_output", None) or {generator.eos}

    @torch.no_grad()
    def generate(self, models: Sequence[Any], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Any]]]:
        """Like fairseq's generators: a list of hypotheses per sentence, best first.

        Each gets ``components``, (5,) float64 in nats (see :data:`COMPONENTS`), and their combination as ``score``;
        plain weights keep the score and the order of the beam search.
        """
        finalized = self.generator.generate(models, sample, **kwargs)
        components = self._components(sample, finalized)
        for hypotheses, rows in zip(finalized, components, strict=True):
            for hypothesis, row in zip(hypotheses, rows, strict=True):
                hypothesis["components"] = row
            if not self.weights.plain:
                scores = self.weights.score(rows, self.lenpen)
                order = np.argsort(-scores, kind="stable")
                for hypothesis, score in zip(hypotheses, scores, strict=True):
                    hypothesis["score"] = torch.tensor(score)
                hypotheses[:] = [hypotheses[i] for i in order]
        return finalized

    def _components(self, sample: dict[str, Any], finalized: list[list[dict[str, Any]]]) -> list[np.ndarray]:
        """(hypotheses, 5) nats for each sentence."""
        pad = self.source_dictionary.pad()
        sources = [row[row.ne(pad)].cpu() for row in sample["net_input"]["src_tokens"]]
        sentence_numbers = [i for i, hypotheses in enumerate(finalized) for _ in hypotheses]
        if not sentence_numbers:
            return [np.zeros((0, len(COMPONENTS))) for _ in finalized]
        hypotheses = [hypothesis for beam in finalized for hypothesis in beam]
        targets = [hypothesis["tokens"].cpu() for hypothesis in hypotheses]
        device = parameter_like(self.reverse_models[0]).device
        nan = torch.full((len(hypotheses),), float("nan"), device=device)
        source_lm, lm = self.lms
        source_scores = nan
        if source_lm is not None:
            source_scores = self.prior_log_probs(source_lm, sources)[torch.as_tensor(sentence_numbers, device=device)]
        columns = [
            torch.stack([h["positional_scores"].float().sum() for h in hypotheses]).to(device),
            self.reverse_log_probs(targets, [sources[i] for i in sentence_numbers]),
            nan if lm is None else self.prior_log_probs(lm, targets),
            source_scores,
        ]
        # one transfer from the device for all columns
        table = torch.stack(columns, dim=1).cpu().double().numpy()
        table = np.concatenate([table, np.array([[len(target)] for target in targets], dtype=np.float64)], axis=1)
        return np.split(table, np.cumsum([len(beam) for beam in finalized])[:-1])

    def reverse_log_probs(self, targets: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
        """log P(source | target): N token tensors of each → (N,) nats, NaN if one is too long."""
        return translation_log_probs(
            self.reverse_models, targets, sources, self.source_dictionary, self.left_pad_source, self._batch_tokens
        )

    def prior_log_probs(self, lm: FrozenLanguageModel, sentences: Sequence[Tensor]) -> Tensor:
        """log P(sentence): N token tensors → (N,) nats, NaN if one is too long."""
        return language_model_log_probs(lm, sentences, parameter_like(self.reverse_models[0]), self._batch_tokens)

    @property
    def _batch_tokens(self) -> int:
        # on a CPU, logits should stay near the caches
        return 1024 if parameter_like(self.reverse_models[0]).device.type == "cpu" else BATCH_TOKENS
