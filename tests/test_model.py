"""Log-probabilities of any arch, against each arch's own, and which checkpoints a pair refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fairseq.models import FairseqDecoder, FairseqEncoder, FairseqEncoderDecoderModel
from fairseq.modules import AdaptiveSoftmax

from dual_fairseq.errors import UserError
from dual_fairseq.model import DualModel, token_log_probs

BATCH, LENGTH, VOCAB, FEATURES = 3, 5, 17, 8


class Encoder(FairseqEncoder):
    def max_positions(self):
        return 30


class Decoder(FairseqDecoder):
    def max_positions(self):
        return 20


def plain_model() -> FairseqEncoderDecoderModel:
    return FairseqEncoderDecoderModel(Encoder(None), Decoder(None))


class OddModel(FairseqEncoderDecoderModel):
    """An arch whose probabilities are not a softmax of its output."""

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return (net_output[0] * 2).log_softmax(-1)


def batch():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(VOCAB, (BATCH, LENGTH), generator=generator)
    return torch.randn(BATCH, LENGTH, VOCAB, generator=generator), target


def assert_is_log_softmax(got, log_probs, target):
    torch.testing.assert_close(got[0], log_probs.gather(-1, target[..., None]).squeeze(-1))
    torch.testing.assert_close(got[1], log_probs.sum(-1))


def test_plain_softmax():
    logits, target = batch()
    assert_is_log_softmax(token_log_probs(plain_model(), (logits,), {}, target, True), logits.log_softmax(-1), target)


def test_an_arch_with_probabilities_of_its_own_is_asked_for_them():
    logits, target = batch()
    odd = OddModel(Encoder(None), Decoder(None))
    assert_is_log_softmax(token_log_probs(odd, (logits,), {}, target, True), (logits * 2).log_softmax(-1), target)


@pytest.mark.parametrize("cutoff", [[4], [4, 9]])
def test_adaptive_softmax_with_and_without_smoothing(cutoff):
    torch.manual_seed(0)
    model = plain_model()
    model.decoder.adaptive_softmax = AdaptiveSoftmax(VOCAB, FEATURES, list(cutoff), dropout=0.0, factor=2.0)
    features = torch.randn(BATCH, LENGTH, FEATURES, requires_grad=True)
    target = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % VOCAB
    with torch.no_grad():  # fairseq's own log-probabilities of the whole vocabulary
        log_probs = model.get_normalized_probs((features,), log_probs=True)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(BATCH, LENGTH))
    assert_is_log_softmax(token_log_probs(model, (features,), {}, target, True), log_probs, target)

    lean, _ = token_log_probs(model, (features,), {}, target, False)
    full, _ = token_log_probs(model, (features,), {}, target, True)
    torch.testing.assert_close(lean, full)
    (lean_grad,) = torch.autograd.grad(lean.sum(), features)
    (full_grad,) = torch.autograd.grad(full.sum(), features)
    torch.testing.assert_close(lean_grad, full_grad)

    model.double()
    features = features.detach().double().requires_grad_()

    def log_prob(f):
        return torch.stack(token_log_probs(model, (f,), {}, target, True))

    assert torch.autograd.gradcheck(log_prob, (features,))


def test_limits_are_the_smallest_of_all_roles():
    pair = DualModel({"de-en": plain_model(), "en-de": plain_model()})
    assert pair.max_positions() == (20, 20) and pair.max_decoder_positions() == 20


@pytest.mark.parametrize(
    "keys, message",
    [
        (["encoder.embed_tokens.weight"], "single model, not a pair"),
        (["models.fr-en.encoder.w", "models.en-fr.encoder.w"], "directions en-fr, fr-en, not de-en, en-de"),
        (["models.de-en.encoder.w"], "directions de-en, not de-en, en-de"),
    ],
)
def test_a_checkpoint_of_other_directions_is_refused_by_name(keys, message):
    pair = DualModel({"de-en": plain_model(), "en-de": plain_model()})
    with pytest.raises(UserError, match=message):
        pair.load_state_dict({key: torch.zeros(1) for key in keys}, model_cfg=SimpleNamespace())
