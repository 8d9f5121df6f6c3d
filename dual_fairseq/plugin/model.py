"""One model a direction, both in one fairseq model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from fairseq.models import BaseFairseqModel, FairseqDecoder, FairseqEncoderDecoderModel, FairseqLanguageModel
from fairseq.models.fconv import FConvDecoder
from fairseq.models.lightconv import LightConvDecoder, LightConvModel
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from fairseq.modules import AdaptiveSoftmax
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from ..common.errors import UserError
from ..recurrent.decoder import RecurrentDecoder
from ..recurrent.language_model import RecurrentLanguageModelDecoder
from . import duality


def direction_name(source: str, target: str) -> str:
    """The name of a direction in state-dict keys and metrics: ``de-en``."""
    return f"{source}-{target}"


def of_direction(state_dict: dict[str, Tensor], direction: str) -> dict[str, Tensor]:
    """The weights of one direction of a pair under the arch's own keys; empty if the pair does not have it."""
    prefix = f"models.{direction}."
    return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}


class DualModel(BaseFairseqModel):
    """A pair of encoder–decoder models of any fairseq arch, one for each direction.

    State-dict keys are ``models.<direction>.<the arch's own keys>``. Both directions run in one :meth:`forward`,
    because DistributedDataParallel synchronises the gradients of that call only.

    Args:
        models: direction → encoder–decoder model.
    """

    def __init__(self, models: dict[str, FairseqEncoderDecoderModel]) -> None:
        super().__init__()
        self.models: Any = nn.ModuleDict(models)
        self.num_updates: int | None = None  # None until fairseq tells

    def forward(
        self, batches: dict[str, dict[str, Any]], padding_idx: int, smoothing: bool = False
    ) -> dict[str, TokenLogProbs]:
        """Run each direction on its own batch, as far as the log-probabilities of its target tokens.

        Args:
            batches: direction → ``net_input`` (``src_tokens`` (B, S), ``src_lengths`` (B,), ``prev_output_tokens``
                (B, T)), ``target`` (B, T), and what else the arch asks of a batch.
            padding_idx: the index of padding in targets.
            smoothing: whether sums over the vocabulary are wanted.

        Returns:
            direction → what :func:`batch_log_probs` gives.
        """
        return {
            direction: batch_log_probs(self.models[direction], batch, padding_idx, smoothing)
            for direction, batch in batches.items()
        }

    def max_positions(self) -> tuple[float, float]:
        """Every sentence is a source once and a target once, so both limits are the smallest of all."""
        limit = min(limit for model in self.models.values() for limit in model.max_positions())
        return (limit, limit)

    def max_decoder_positions(self) -> float:
        return min(model.max_decoder_positions() for model in self.models.values())

    def set_num_updates(self, num_updates: int) -> None:
        """fairseq calls this before every update (and on loading); the criterion's schedule of λ reads it."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq calls this before it translates; an arch may have preparations, or refusals, of its own."""
        for model in self.models.values():
            model.prepare_for_inference_(cfg)
        # nothing is left to prepare; fairseq's method would do it again and leave fconv's attention in training mode
        self.eval()

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, model_cfg=None, args=None) -> None:
        """Load each direction as its arch loads a checkpoint of its own (upgrades and pruning go by the arch's keys).

        Raises:
            UserError: the checkpoint does not hold this model's directions.
        """
        self._check_directions(state_dict)
        for direction, model in self.models.items():
            weights = of_direction(state_dict, direction)
            # pruning writes into the configuration
            model.load_state_dict(weights, strict=strict, model_cfg=copy.deepcopy(model_cfg), args=args)

    def _check_directions(self, state_dict: dict[str, Tensor]) -> None:
        """A checkpoint that is no pair, or a pair of other languages, is refused by name."""
        held = {key.split(".")[1] for key in state_dict if key.startswith("models.")}
        wanted = set(self.models)
        if not held:
            raise UserError(
                "the checkpoint holds a single model, not a pair: use it with --task translation, or start a pair "
                "from it with --init-src2tgt / --init-tgt2src"
            )
        if held != wanted:
            raise UserError(
                f"the checkpoint holds the directions {', '.join(sorted(held))}, not {', '.join(sorted(wanted))}: "
                "give its languages with -s and -t"
            )


class TokenLogProbs(NamedTuple):
    """Log-probabilities of a batch's target tokens, all (B, T).

    Args:
        target: token indices.
        log_prob: log P of the target tokens, nats, float32.
        log_prob_sum: Σ_v log P(v) at the same positions (for label smoothing; meaningless if it was not asked for).
    """

    target: Tensor
    log_prob: Tensor
    log_prob_sum: Tensor


def batch_log_probs(
    model: BaseFairseqModel, sample: dict[str, Any], padding_idx: int, smoothing: bool = False
) -> TokenLogProbs:
    """log P of every target token of a batch by any fairseq encoder–decoder.

    Where the arch's output layer is one matrix product at the end, it is computed together with the softmax, block by
    block and for real tokens only, so that no (B, T, V) tensor exists; any other arch runs as it is.

    Args:
        model: an encoder–decoder.
        sample: a batch, with ``net_input`` and ``target``.
        padding_idx: the index of padding in the target.
        smoothing: whether sums over the vocabulary are wanted.

    Returns:
        log-probabilities; at padding 0, or whatever the arch gives there.
    """
    head = _output_head(model)
    if head is None:
        net_output = model(**sample["net_input"])
        target = model.get_targets(sample, net_output)
        return TokenLogProbs(target, *token_log_probs(model, net_output, sample, target, smoothing))
    target = sample["target"]
    # before the model runs: on a GPU the host waits here
    rows = target.reshape(-1).ne(padding_idx).nonzero().squeeze(-1)
    with head.left_out():
        features = model(**sample["net_input"])[0]
    features = features.reshape(-1, features.size(-1)).index_select(0, rows)
    weight, bias = head.parameters()
    of_rows = duality.projected_token_log_probs(features, weight, bias, target.reshape(-1)[rows])
    log_prob, log_prob_sum = (
        value.new_zeros(target.numel()).index_copy(0, rows, value).view(target.shape) for value in of_rows
    )
    return TokenLogProbs(target, log_prob, log_prob_sum)


@dataclass(frozen=True)
class _OutputHead:
    """The matrix product that a decoder ends with.

    Args:
        decoder: the decoder.
        name: the decoder's method or module that does it.
        layer: the layer that holds the weights: a linear layer, or the embedding that it shares.
    """

    decoder: FairseqDecoder
    name: str
    layer: nn.Module

    def parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, D) and bias (V,), if there is one."""
        layer: Any = self.layer
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                return hook.compute_weight(layer), layer.bias
        return layer.weight, getattr(layer, "bias", None)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """In this context the decoder returns its features in place of scores."""
        modules, identity = self.decoder._modules, nn.Identity()
        if self.name in modules:
            layer, modules[self.name] = modules[self.name], identity
            try:
                yield
            finally:
                modules[self.name] = layer
        else:  # a method, which an attribute of the same name hides
            self.decoder.__dict__[self.name] = identity
            try:
                yield
            finally:
                del self.decoder.__dict__[self.name]


# Archs are told by the methods that they have not overridden. A model's forward that ends with its decoder's output:
_PLAIN_FORWARDS = {
    FairseqEncoderDecoderModel.forward,
    FairseqLanguageModel.forward,
    TransformerModelBase.forward,
    LSTMModel.forward,
    LightConvModel.forward,
}


_RECURRENT_DECODERS = {
    (decoder.forward, decoder.output_layer) for decoder in (RecurrentDecoder, RecurrentLanguageModelDecoder)
}


def _output_head(model: BaseFairseqModel) -> _OutputHead | None:
    """The last matrix product of the model, if that is how it ends and nobody watches or changes what comes of it."""
    if not (
        _is_plain_softmax(model)
        and type(model).forward in _PLAIN_FORWARDS
        and type(model).get_targets is BaseFairseqModel.get_targets
    ):
        return None
    decoder = model.decoder
    forward, output_layer = type(decoder).forward, getattr(type(decoder), "output_layer", None)
    layer: nn.Module | None
    if forward is TransformerDecoderBase.forward and output_layer is TransformerDecoderBase.output_layer:
        name, layer = "output_layer", decoder.output_projection
    elif forward is LSTMDecoder.forward and output_layer is LSTMDecoder.output_layer:
        name, layer = "output_layer", decoder.embed_tokens if decoder.share_input_output_embed else decoder.fc_out
    elif (forward, output_layer) in _RECURRENT_DECODERS:
        name, layer = "output_layer", decoder.vocabulary_layer
    elif forward is LightConvDecoder.forward:
        name, layer = "output_projection", decoder.output_projection
    elif forward is FConvDecoder.forward:
        name, layer = "fc3", decoder.fc3
    else:
        return None
    changed = name in decoder.__dict__ or type(layer) not in (nn.Linear, nn.Embedding)
    watched = any(
        module._forward_hooks or module._backward_hooks or module._backward_pre_hooks for module in (decoder, layer)
    )
    hooks = [*decoder._forward_pre_hooks.values(), *layer._forward_pre_hooks.values()]
    if changed or watched or not all(isinstance(hook, WeightNorm) for hook in hooks):
        return None
    return _OutputHead(decoder, name, layer)


def token_log_probs(
    model: BaseFairseqModel, net_output: Any, sample: dict[str, Any], target: Tensor, smoothing: bool = False
) -> tuple[Tensor, Tensor]:
    """log P of every target token by any fairseq encoder–decoder or language model.

    Args:
        model: what gave ``net_output``.
        net_output: its output; for most archs (B, T, V) logits come first.
        sample: the batch it came from, for archs that ask for it.
        target: (B, T) token indices.
        smoothing: whether the second result is wanted; an adaptive softmax saves work without it.

    Returns:
        (log_prob, log_prob_sum), both (B, T), nats, float32: at the target, and summed over the vocabulary (for label
        smoothing; meaningless without ``smoothing``).
    """
    if _is_plain_softmax(model):
        return duality.token_log_probs(net_output[0], target)
    adaptive = getattr(getattr(model, "decoder", None), "adaptive_softmax", None)
    if adaptive is not None:
        return _adaptive_token_log_probs(adaptive, net_output[0], target, smoothing)
    log_probs = model.get_normalized_probs(net_output, log_probs=True, sample=sample).float()
    return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1), log_probs.sum(dim=-1)


def _adaptive_token_log_probs(
    adaptive: AdaptiveSoftmax, features: Tensor, target: Tensor, smoothing: bool
) -> tuple[Tensor, Tensor]:
    """log P under an adaptive softmax: of frequent words by the head, else log P(cluster) + log P(word | cluster).

    fairseq's own ``get_log_prob`` writes in place what autograd still needs, and with a target it leaves the clusters
    that the target is not in at 0; so the parts are put together here.

    Args:
        features: (B, T, D) what the decoder returns in place of logits.
        target: (B, T).

    Returns:
        As :func:`token_log_probs`.
    """
    x = adaptive.dropout_module(features.reshape(-1, features.size(-1)))
    flat = target.reshape(-1)
    head_target, cluster_rows = adaptive.adapt_target(flat)
    head = torch.log_softmax(adaptive.head(x), dim=-1, dtype=duality.accumulation_dtype(x))
    words = adaptive.cutoff[0]
    log_prob = head.gather(-1, head_target[0].unsqueeze(-1)).squeeze(-1)
    total = head[:, :words].sum(dim=-1)
    for i, tail in enumerate(adaptive.tail):
        start, end = adaptive.cutoff[i], adaptive.cutoff[i + 1]
        if smoothing:  # every word of every cluster counts
            in_tail, tail_total = duality.token_log_probs(tail(x), flat.sub(start).clamp(0, end - start - 1))
            log_prob = log_prob + in_tail.where((flat >= start) & (flat < end), torch.zeros_like(in_tail))
            total = total + (end - start) * head[:, words + i] + tail_total
        elif cluster_rows[i] is not None:
            rows = cluster_rows[i]
            in_tail, _ = duality.token_log_probs(tail(x[rows]), head_target[i + 1])
            log_prob = log_prob.index_add(0, rows, in_tail)
    return log_prob.view(target.shape), total.view(target.shape)


# transformer's is the base's own, written again for TorchScript
_PLAIN_MODEL_METHODS = {BaseFairseqModel.get_normalized_probs, TransformerModelBase.get_normalized_probs}


def _is_plain_softmax(model: BaseFairseqModel) -> bool:
    decoder = getattr(model, "decoder", None)
    return (
        isinstance(decoder, FairseqDecoder)
        and getattr(decoder, "adaptive_softmax", None) is None
        and type(model).get_normalized_probs in _PLAIN_MODEL_METHODS
        and type(model).get_normalized_probs_scriptable is BaseFairseqModel.get_normalized_probs_scriptable
        and type(decoder).get_normalized_probs is FairseqDecoder.get_normalized_probs
        and type(decoder).get_normalized_probs_scriptable is FairseqDecoder.get_normalized_probs_scriptable
    )


def parameter_like(model: nn.Module) -> Tensor:
    """Any parameter: the device and the precision that a run's own tensors have."""
    return next(p for p in model.parameters() if torch.is_floating_point(p))
