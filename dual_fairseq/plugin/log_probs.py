"""Sentence log-probabilities of given text, by translation and language models, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from .language_model import FrozenLanguageModel
from .model import parameter_like
from .output_layer import batch_log_probs

# Padded tokens per batch. Its logits need memory: half a GB for a vocabulary of 32,000.
BATCH_TOKENS = 4096


@torch.no_grad()
def translation_log_probs(
    models: Sequence[FairseqEncoderDecoderModel],
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    target_dictionary: Dictionary,
    left_pad_source: bool = True,
    max_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """log P(target | source) of all target tokens, ``</s>`` included, by one model or an ensemble.

    An ensemble averages the probabilities of each token, as fairseq's beam search does.

    Args:
        models: encoder–decoder models of one direction, in evaluation mode.
        sources, targets: N token tensors each, ending in ``</s>``; sentences with the same index belong together.
        target_dictionary: of the target language (the special symbols are the same in both).
        left_pad_source: as the models were trained (fairseq's default).
        max_tokens: padded tokens in a batch.
        advance: called with the number of sentences after each batch.

    Returns:
        (N,) nats, float32, on the models' device; NaN if a sentence is empty, or too long for a model.
    """
    like = parameter_like(models[0])
    pad, eos = target_dictionary.pad(), target_dictionary.eos()
    source_limit = min(model.max_positions()[0] for model in models)
    target_limit = min(model.max_decoder_positions() for model in models)
    source_sizes, target_sizes = _sizes(sources), _sizes(targets)
    sizes = np.maximum(source_sizes, target_sizes)
    sizes[(source_sizes > source_limit) | (target_sizes > target_limit) | (source_sizes * target_sizes == 0)] = 0
    scores = torch.full((len(sources),), float("nan"), device=like.device)
    for batch in length_sorted_batches(sizes, max_tokens):
        # fairseq's LSTM encoder demands this order
        batch = batch[np.argsort(-source_sizes[batch], kind="stable")]
        source = data_utils.collate_tokens([sources[i] for i in batch], pad, eos, left_pad_source)
        target = [targets[i] for i in batch]
        reference = data_utils.collate_tokens(target, pad, eos)
        previous = data_utils.collate_tokens(target, pad, eos, move_eos_to_beginning=True)
        source, reference, previous = (t.long().to(like.device) for t in (source, reference, previous))
        lengths = torch.as_tensor(source_sizes[batch], device=like.device)
        net_input = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous}
        sample = {"net_input": net_input, "target": reference}
        tokens = torch.stack([batch_log_probs(m, sample, pad).log_prob for m in models])
        log_prob = tokens.logsumexp(dim=0) - np.log(len(models))
        scores[torch.as_tensor(batch, device=like.device)] = log_prob.masked_fill(reference.eq(pad), 0.0).sum(dim=-1)
        advance(len(batch))
    return scores


@torch.no_grad()
def language_model_log_probs(
    lm: FrozenLanguageModel,
    sentences: Sequence[Tensor],
    like: Tensor,
    max_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """log P(sentence), ``</s>`` included.

    Args:
        lm: the language model.
        sentences: N token tensors, ending in ``</s>``.
        like: a tensor with the device and floating type to use.
        max_tokens: padded tokens in a batch.
        advance: called with the number of sentences after each batch.

    Returns:
        (N,) nats, float32, on the device of ``like``; NaN if a sentence is too long for the language model.
    """
    sizes = _sizes(sentences)
    sizes[sizes > lm.max_positions] = 0
    scores = torch.full((len(sentences),), float("nan"), device=like.device)
    for batch in length_sorted_batches(sizes, max_tokens):
        tokens = data_utils.collate_tokens([sentences[i] for i in batch], lm.dictionary.pad())
        score = lm.sentence_log_prob(tokens.long().to(like.device), like)
        scores[torch.as_tensor(batch, device=like.device)] = score
        advance(len(batch))
    return scores


def length_sorted_batches(sizes: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Batches of indices of similar sentence length, longest first, up to ``max_tokens`` padded tokens each.

    Args:
        sizes: (N,) lengths in tokens; sentences of length 0 are skipped.
    """
    order = np.argsort(-sizes, kind="stable")
    order = order[: np.count_nonzero(sizes)]
    start = 0
    while start < len(order):
        count = max(1, max_tokens // int(sizes[order[start]]))
        yield order[start : start + count]
        start += count


def _sizes(sentences: Sequence[Tensor]) -> np.ndarray:
    return np.fromiter((len(sentence) for sentence in sentences), dtype=np.int64, count=len(sentences))
