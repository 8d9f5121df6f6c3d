"""``dual_cross_entropy``: each direction's NLL plus the squared duality gap, the other direction held constant."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ..common.errors import UserError
from . import duality
from .model import DualModel, parameter_like
from .output_layer import TokenLogProbs

logger = logging.getLogger(__name__)

_NAMED_SENTENCES = 20  # how many sentences of a bad batch a message names


@dataclass
class DualCrossEntropyConfig(FairseqDataclass):
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "epsilon of label smoothing in the NLL, 0 means none (the gap is never smoothed)"},
    )
    dual_lambda: float = field(
        default=0.01,
        metadata={
            "help": "λ, the weight of the squared duality gap, of both directions; 0 trains the pair without LMs"
        },
    )
    dual_lambda_reverse: Optional[float] = field(
        default=None, metadata={"help": "λ of target→source (default: --dual-lambda)"}
    )
    dual_start_update: int = field(
        default=0,
        metadata={
            "help": "λ is 0 for this many updates; no LM runs until then (--lm-score-cache fills its cache first)"
        },
    )
    dual_ramp_updates: int = field(
        default=0, metadata={"help": "then λ grows linearly to its value over this many updates"}
    )
    dual_gap_clip: float = field(default=0.0, metadata={"help": "bound of |gap| (nats) in the gradient, 0 means none"})
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("dual_cross_entropy", dataclass=DualCrossEntropyConfig)
class DualCrossEntropyCriterion(FairseqCriterion):
    """The loss of dual supervised learning over a :class:`~dual_fairseq.plugin.model.DualModel`.

    The language models come from the task and are called without gradients. With λ = 0 (also before
    ``--dual-start-update``) the loss is the sum of both directions' (label-smoothed) NLL and no LM is evaluated.

    Raises:
        UserError: an option is out of range, or λ > 0 without both language models.
    """

    def __init__(
        self,
        task,
        label_smoothing: float,
        sentence_avg: bool,
        dual_lambda: float,
        dual_lambda_reverse: float | None,
        dual_start_update: int,
        dual_ramp_updates: int,
        dual_gap_clip: float,
    ) -> None:
        super().__init__(task)
        if dual_lambda_reverse is None:
            dual_lambda_reverse = dual_lambda
        _require_non_negative("--dual-lambda", dual_lambda)
        _require_non_negative("--dual-lambda-reverse", dual_lambda_reverse)
        _require_non_negative("--dual-gap-clip", dual_gap_clip)
        _require_non_negative("--dual-start-update", dual_start_update)
        _require_non_negative("--dual-ramp-updates", dual_ramp_updates)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"--label-smoothing {label_smoothing}: must be at least 0 and below 1")
        if not hasattr(task, "priors"):
            raise UserError("--criterion dual_cross_entropy trains a pair: use it with --task dual_translation")

        self.eps = label_smoothing
        self.sentence_avg = sentence_avg
        self.start, self.ramp, self.clip = dual_start_update, dual_ramp_updates, dual_gap_clip
        self.forward_direction, self.reverse_direction = task.directions
        self._vocab = {direction: len(side.target_dictionary) for direction, side in task.sides.items()}
        # --dual-lambda belongs to the run's source→target, even if validation names the languages in reverse
        self.lambdas = dict(zip(task.trained_directions, (dual_lambda, dual_lambda_reverse), strict=True))
        if any(self.lambdas.values()):
            task.priors.prepare()

    def forward(
        self, model: DualModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, float, dict[str, Any]]:
        """Compute the loss of a batch of :class:`~dual_fairseq.plugin.dataset.DualLanguagePairDataset`.

        Returns:
            1) the loss, summed over both directions and all sentences; (B,), one per pair, with ``reduce=False``
            2) the sample size: half of both directions' target tokens (the sentences with ``--sentence-avg``), so that
               each direction sees the gradient scale of a plain run
            3) sums to log
        """
        if "reverse" not in sample:
            raise UserError("the data have no target side, which training and validation of a pair need")
        batches = {self.forward_direction: sample, self.reverse_direction: sample["reverse"]}
        tokens = model(batches, self.padding_idx, smoothing=self.eps > 0)

        nll, smoothed_nll = {}, {}
        for direction in batches:
            nll[direction], smoothed_nll[direction] = self._nll(tokens[direction], self._vocab[direction])
        # from here on row i is the sentence pair in row i of the source→target batch, in both directions
        align = sample["align"]
        nll[self.reverse_direction] = nll[self.reverse_direction][align]
        loss = smoothed_nll[self.forward_direction] + smoothed_nll[self.reverse_direction][align]

        ntokens = {direction: batch["ntokens"] for direction, batch in batches.items()}
        logging_output: dict[str, Any] = {
            "nll_loss": sum(n.detach().sum() for n in nll.values()),
            "ntokens": sum(ntokens.values()),
            "nsentences": sample["nsentences"],
        }
        for direction in batches:
            logging_output[f"nll_loss_{direction}"] = nll[direction].detach().sum()
            logging_output[f"ntokens_{direction}"] = ntokens[direction]

        parts = {f"NLL of {direction}": values for direction, values in nll.items()}
        lambdas = self._lambdas_now(model)
        if any(lambdas.values()):
            penalty, gap = self._duality(model, sample, nll, lambdas)
            loss = loss + penalty
            logging_output.update(self._gap_sums(gap, lambdas))
            parts["duality gap"] = gap

        logging_output["loss"] = loss.detach().sum()
        self._name_bad_sentences(model, sample, {**parts, "loss": loss})
        sample_size = sample["nsentences"] if self.sentence_avg else sum(ntokens.values()) / 2
        logging_output["sample_size"] = sample_size
        return (loss.sum() if reduce else loss), sample_size, logging_output

    def _nll(self, tokens: TokenLogProbs, vocab: int) -> tuple[Tensor, Tensor]:
        """True and label-smoothed NLL of each sentence: two (B,) in nats, in the order of the batch."""
        mask = tokens.target.ne(self.padding_idx)
        nll = -duality.sentence_log_prob(tokens.log_prob, mask)
        return nll, duality.label_smoothed_nll(tokens.log_prob, tokens.log_prob_sum, mask, self.eps, vocab)

    def _lambdas_now(self, model: DualModel) -> dict[str, float]:
        """λ of each direction at this update; outside training (``fairseq-validate``) its final value."""
        if self.task.from_checkpoint or model.num_updates is None:
            return self.lambdas
        return {
            direction: duality.ramped_lambda(value, model.num_updates, self.start, self.ramp)
            for direction, value in self.lambdas.items()
        }

    def _duality(
        self, model: DualModel, sample: dict[str, Any], nll: dict[str, Tensor], lambdas: dict[str, float]
    ) -> tuple[Tensor, Tensor]:
        """The sum of both directions' penalties, and the gap: two (B,), nats² and nats."""
        log_p_x, log_p_y = self._priors(model, sample)
        forward_penalty, reverse_penalty, gap = duality.dual_penalties(
            log_p_x,
            -nll[self.forward_direction],
            log_p_y,
            -nll[self.reverse_direction],
            lambdas[self.forward_direction],
            lambdas[self.reverse_direction],
            self.clip,
        )
        return forward_penalty + reverse_penalty, gap

    def _priors(self, model: DualModel, sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """log P(x) and log P(y), two (B,) in nats: from the batch if cached, else from the LMs."""
        if "log_p_source" in sample:
            return sample["log_p_source"].float(), sample["log_p_target"].float()
        like = parameter_like(model)
        source_lm, target_lm = self.task.priors.models()
        # the target of the reverse batch is the source sentence, right-padded as language models need it
        log_p_x = source_lm.sentence_log_prob(sample["reverse"]["target"], like)[sample["align"]]
        return log_p_x, target_lm.sentence_log_prob(sample["target"], like)

    def _name_bad_sentences(self, model: DualModel, sample: dict[str, Any], parts: dict[str, Tensor]) -> None:
        """Name the sentences whose loss is NaN or infinite, in validation and when training has broken down.

        A check of every training batch would make a GPU wait. If gradients are not finite (or fp16 cannot scale them
        lower), fairseq runs the update's batches once more before it gives up, with hooks on all modules to find the
        place. These hooks show that this is such a run. The next message is fairseq's own.

        Args:
            parts: the parts of the loss, each (B,) in the order of the batch, and the loss itself.
        """
        hunting = any(side._forward_hooks for side in model.models.values())
        if model.training and not hunting:
            return
        ids, split = sample["id"], self.task.cfg.train_subset if model.training else "validation"
        update = (model.num_updates or 0) + int(model.training)
        finite = True
        for name, values in parts.items():
            bad = ~torch.isfinite(values.detach())
            if bad.any():
                finite = False
                logger.error("update %d: %s: NaN or infinite in %s", update, name, _listed(ids[bad], split))
        if hunting and finite:
            logger.error("update %d: losses finite, but not a gradient, in %s", update, _listed(ids, split))

    def _gap_sums(self, gap: Tensor, lambdas: dict[str, float]) -> dict[str, Any]:
        forward, reverse = lambdas[self.forward_direction], lambdas[self.reverse_direction]
        count = gap.numel()
        return {
            "gap_sum": gap.sum(),
            "gap_abs_sum": gap.abs().sum(),
            "gap_sq_sum": gap.square().sum(),
            "neg_weight_sum": duality.negative_weights(gap, forward, reverse).sum(),
            # λ of the run's source→target; the reverse λ follows the same schedule
            "dual_lambda_sum": next(iter(lambdas.values())) * count,
            "gap_count": count,
        }

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[dict[str, Any]]) -> None:
        """Aggregate logging outputs: losses in bits per target token, gaps in nats per sentence pair."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        def log_mean(name: str, sum_key: str, count_key: str, scale: float = 1.0, digits: int = 3) -> None:
            count = total(count_key)
            if count > 0:
                metrics.log_scalar(name, total(sum_key) / count * scale, count, round=digits)

        bits = 1 / math.log(2)
        log_mean("loss", "loss", "ntokens", bits)
        log_mean("nll_loss", "nll_loss", "ntokens", bits)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        prefix = "nll_loss_"
        for key in sorted({key for log in logging_outputs for key in log if key.startswith(prefix)}):
            log_mean(key, key, "ntokens_" + key[len(prefix) :], bits)
        log_mean("gap_abs", "gap_abs_sum", "gap_count")
        log_mean("gap_sq", "gap_sq_sum", "gap_count")
        log_mean("gap_mean", "gap_sum", "gap_count")
        log_mean("neg_weight", "neg_weight_sum", "gap_count", digits=4)
        log_mean("dual_lambda", "dual_lambda_sum", "gap_count", digits=6)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every entry is a sum, so fairseq may add them up across processes before :meth:`reduce_metrics`."""
        return True


def _listed(ids: Tensor, split: str) -> str:
    """Sentence ids as text; an id is a sentence pair's place in the binarized split, from 0."""
    shown = ", ".join(map(str, ids[:_NAMED_SENTENCES].tolist()))
    end = ", ..." if len(ids) > _NAMED_SENTENCES else ""
    return f"{len(ids)} sentence pair(s) of the {split} data, ids (from 0): {shown}{end}"


def _require_non_negative(option: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{option} {value}: must be a finite number, 0 or more")
