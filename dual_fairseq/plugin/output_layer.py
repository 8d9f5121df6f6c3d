"""log P of a batch's target tokens by any fairseq arch.

Most archs end in one matrix product, from features to scores. The product is then computed together with the softmax,
so that the scores never exist as a whole. This file recognises these archs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from fairseq.models import (
    BaseFairseqModel,
    FairseqDecoder,
    FairseqEncoderDecoderModel,
    FairseqIncrementalDecoder,
    FairseqLanguageModel,
)
from fairseq.models.fconv import FConvDecoder
from fairseq.models.lightconv import LightConvDecoder, LightConvModel
from fairseq.models.lstm import LSTMDecoder, LSTMModel
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.weight_norm import WeightNorm

from ..compat import matmul
from . import softmax


class TokenLogProbs(NamedTuple):
    """Log-probabilities of a batch's target tokens, all (B, T).

    Args:
        target: token indices.
        log_prob: log P of the target tokens, nats, float32.
        log_prob_sum: Σ_v log P(v) at the same positions (for label smoothing; meaningless if not requested).
    """

    target: Tensor
    log_prob: Tensor
    log_prob_sum: Tensor


def batch_log_probs(
    model: BaseFairseqModel, sample: dict[str, Any], padding_idx: int, smoothing: bool = False
) -> TokenLogProbs:
    """log P of every target token of a batch by any fairseq encoder–decoder or language model.

    If the arch ends in one matrix product, the product is computed together with the softmax, block by block and for
    real tokens only, so that no (B, T, V) tensor exists; any other arch runs unchanged.

    Args:
        model: such a model.
        sample: a batch, with ``net_input`` and ``target``.
        padding_idx: the index of padding in the target.
        smoothing: whether sums over the vocabulary are wanted.

    Returns:
        log-probabilities; at padding 0, or the arch's own values.
    """
    # in training, train_step has chosen the matrix products
    with nullcontext() if torch.is_grad_enabled() else matmul.products(sample):
        return _batch_log_probs(model, sample, padding_idx, smoothing)


def _batch_log_probs(
    model: BaseFairseqModel, sample: dict[str, Any], padding_idx: int, smoothing: bool
) -> TokenLogProbs:
    layer = find_output_layer(model)
    if layer is None:
        net_output = model(**sample["net_input"])
        target = model.get_targets(sample, net_output)
        return TokenLogProbs(target, *net_output_log_probs(model, net_output, sample, target, smoothing))
    target = sample["target"]
    # before the model runs: on a GPU the host waits here
    rows = target.reshape(-1).ne(padding_idx).nonzero().squeeze(-1)
    with layer.left_out():
        features = model(**sample["net_input"])[0]
    features = features.reshape(-1, features.size(-1)).index_select(0, rows)
    weight, bias = layer.parameters()
    results = softmax.projected_token_log_probs(features, weight, bias, target.reshape(-1)[rows])
    log_prob, log_prob_sum = (
        value.new_zeros(target.numel()).index_copy(0, rows, value).view(target.shape) for value in results
    )
    return TokenLogProbs(target, log_prob, log_prob_sum)


class ProjectionDecoder(FairseqIncrementalDecoder):
    """Base class of a decoder whose scores are its features times one matrix.

    A subclass sets ``embed_tokens`` and ``output_projection`` and defines ``extract_features``. A subclass that
    overrides ``forward`` or ``output_layer`` runs unchanged.
    """

    embed_tokens: nn.Embedding  # (V, D)
    output_projection: nn.Linear | None  # D → V; None means the embeddings

    def forward(
        self, prev_output_tokens: Tensor, encoder_out: Any = None, incremental_state: Any = None, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        """Scores (B, T, V) of every target token, and the extra result of :meth:`extract_features`."""
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state, **kwargs)
        return self.output_layer(features), extra

    @property
    def vocabulary_layer(self) -> nn.Linear | nn.Embedding:
        """The layer that holds the output weights (V, D)."""
        return self.embed_tokens if self.output_projection is None else self.output_projection

    def output_layer(self, features: Tensor) -> Tensor:
        """(B, T, D) → (B, T, V)."""
        if self.output_projection is None:
            return F.linear(features, self.embed_tokens.weight)
        return self.output_projection(features)


@dataclass(frozen=True)
class OutputLayer:
    """The matrix product at the end of a decoder.

    Args:
        decoder: the decoder.
        name: the decoder's method or module that computes it.
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
        """In this context the decoder returns its features instead of scores."""
        layer = self.decoder._modules.get(self.name)
        # an attribute hides a method of the same name
        place: dict[str, Any] = vars(self.decoder) if layer is None else self.decoder._modules
        place[self.name] = nn.Identity()
        try:
            yield
        finally:
            if layer is None:
                del place[self.name]
            else:
                place[self.name] = layer


# Archs are recognised by methods that they do not override. Forward methods that end with the decoder's output:
_PLAIN_FORWARDS = {
    FairseqEncoderDecoderModel.forward,
    FairseqLanguageModel.forward,
    TransformerModelBase.forward,
    LSTMModel.forward,
    LightConvModel.forward,
}


def find_output_layer(model: BaseFairseqModel) -> OutputLayer | None:
    """The last matrix product of the model, if the model ends with it and no hook watches or changes the result."""
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
    elif forward is ProjectionDecoder.forward and output_layer is ProjectionDecoder.output_layer:
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
    return OutputLayer(decoder, name, layer)


def net_output_log_probs(
    model: BaseFairseqModel, net_output: Any, sample: dict[str, Any], target: Tensor, smoothing: bool = False
) -> tuple[Tensor, Tensor]:
    """log P of every target token by any fairseq encoder–decoder or language model.

    Args:
        model: the model that gave ``net_output``.
        net_output: its output; for most archs (B, T, V) logits come first.
        sample: the batch, for archs that need it.
        target: (B, T) token indices.
        smoothing: whether the second result is wanted; an adaptive softmax saves work without it.

    Returns:
        (log_prob, log_prob_sum), both (B, T), nats, float32: at the target, and summed over the vocabulary (for label
        smoothing; meaningless without ``smoothing``).
    """
    if _is_plain_softmax(model):
        return softmax.token_log_probs(net_output[0], target)
    adaptive = getattr(getattr(model, "decoder", None), "adaptive_softmax", None)
    if adaptive is not None:
        return softmax.adaptive_token_log_probs(adaptive, net_output[0], target, smoothing)
    log_probs = model.get_normalized_probs(net_output, log_probs=True, sample=sample).float()
    return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1), log_probs.sum(dim=-1)


# transformer's is a copy of the base's, for TorchScript
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
