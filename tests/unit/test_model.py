"""Log-probabilities of any arch, against each arch's own, and which checkpoints a pair refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig
from fairseq.models import FairseqDecoder, FairseqEncoder, FairseqEncoderDecoderModel
from fairseq.modules import AdaptiveSoftmax, BeamableMM
from fairseq.modules.dynamic_convolution import DynamicConv_scripatable
from fairseq.tasks.translation import TranslationTask
from helpers import configuration
from torch.utils._python_dispatch import TorchDispatchMode

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin import output_layer, softmax
from dual_fairseq.plugin.dual_inference import DualInferenceGenerator
from dual_fairseq.plugin.log_probs import translation_log_probs
from dual_fairseq.plugin.model import DualModel
from dual_fairseq.plugin.output_layer import batch_log_probs, net_output_log_probs
from dual_fairseq.plugin.ranking import Weights

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
    assert_is_log_softmax(
        net_output_log_probs(plain_model(), (logits,), {}, target, True), logits.log_softmax(-1), target
    )


def test_an_arch_with_probabilities_of_its_own_is_asked_for_them():
    logits, target = batch()
    odd = OddModel(Encoder(None), Decoder(None))
    assert_is_log_softmax(net_output_log_probs(odd, (logits,), {}, target, True), (logits * 2).log_softmax(-1), target)


@pytest.mark.parametrize("cutoff", [[4], [4, 9]])
def test_adaptive_softmax_with_and_without_smoothing(cutoff):
    torch.manual_seed(0)
    arch = plain_model()
    arch.decoder.adaptive_softmax = AdaptiveSoftmax(VOCAB, FEATURES, list(cutoff), dropout=0.0, factor=2.0)
    features = torch.randn(BATCH, LENGTH, FEATURES, requires_grad=True)
    target = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) % VOCAB
    with torch.no_grad():  # fairseq's own log-probabilities of the whole vocabulary
        log_probs = arch.get_normalized_probs((features,), log_probs=True)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(BATCH, LENGTH))
    assert_is_log_softmax(net_output_log_probs(arch, (features,), {}, target, True), log_probs, target)

    lean, _ = net_output_log_probs(arch, (features,), {}, target, False)
    full, _ = net_output_log_probs(arch, (features,), {}, target, True)
    torch.testing.assert_close(lean, full)
    (lean_grad,) = torch.autograd.grad(lean.sum(), features)
    (full_grad,) = torch.autograd.grad(full.sum(), features)
    torch.testing.assert_close(lean_grad, full_grad)

    arch.double()
    features = features.detach().double().requires_grad_()

    def log_prob(f):
        return torch.stack(net_output_log_probs(arch, (f,), {}, target, True))

    assert torch.autograd.gradcheck(log_prob, (features,))


# --- real archs: the output layer computed together with the softmax

SIZES = {
    "transformer": (
        "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-ffn-embed-dim 16 "
        "--decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 --dropout 0.1"
    ),
    "lstm": "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-hidden-size 8 --decoder-hidden-size 8",
    "rnnsearch": "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-hidden-size 8 --decoder-hidden-size 8",
    "rnn_luong": "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-hidden-size 8 --decoder-hidden-size 8",
    "fconv": (
        "--encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-layers [(8,3)] --decoder-layers [(8,3)] "
        "--decoder-attention [True]"
    ),
    "lightconv": (
        "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-ffn-embed-dim 16 "
        "--decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 "
        "--encoder-kernel-size-list [3] --decoder-kernel-size-list [3] --encoder-glu 0 --decoder-glu 0"
    ),
}
ARCHS = {
    "transformer": "transformer",
    "transformer, tied embeddings": "transformer --share-decoder-input-output-embed",
    "transformer, projected": "transformer --decoder-output-dim 4",
    "lstm": "lstm --decoder-out-embed-dim 8",
    "lstm, additional layer": "lstm --decoder-out-embed-dim 4",
    "lstm, tied embeddings": "lstm --decoder-out-embed-dim 8 --share-decoder-input-output-embed",
    "rnnsearch": "rnnsearch --readout-size 6",
    "rnn_luong, tied embeddings": "rnn_luong --readout-size 8 --share-decoder-input-output-embed",
    "fconv": "fconv --decoder-out-embed-dim 4",
    "fconv, tied embeddings": "fconv --decoder-out-embed-dim 8 --share-input-output-embed",
    "lightconv": "lightconv",
    "lightconv, tied embeddings": "lightconv --share-decoder-input-output-embed",
}
SYMBOLS, PAD = 41, 1


def build(arguments: str) -> FairseqEncoderDecoderModel:
    dictionary = Dictionary()
    for i in range(SYMBOLS - 4):
        dictionary.add_symbol(f"w{i}")
    words = arguments.split()
    cfg = configuration("data", "--task", "translation", "--arch", *words, *SIZES[words[0]].split())
    torch.manual_seed(2)
    return TranslationTask(cfg.task, dictionary, dictionary).build_model(cfg.model)


def padded_batch() -> dict:
    generator = torch.Generator().manual_seed(3)
    source_lengths, target_lengths = torch.tensor([6, 5, 3]), torch.tensor([4, 7, 2])
    source, target = (torch.randint(4, SYMBOLS, (3, n), generator=generator) for n in (6, 7))
    source[torch.arange(6) < 6 - source_lengths[:, None]] = PAD  # left-padded, as fairseq does
    target[torch.arange(7) >= target_lengths[:, None]] = PAD
    previous = torch.cat([torch.full((3, 1), 2), target[:, :-1]], dim=1)
    net_input = {"src_tokens": source, "src_lengths": source_lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target}


def loss_and_gradients(arch, sample):
    """Log-probabilities at tokens that count, and the gradients of a loss that weighs each sentence differently."""
    torch.manual_seed(4)  # dropout
    tokens = batch_log_probs(arch, sample, PAD, smoothing=True)
    mask = tokens.target.ne(PAD)
    weights = torch.tensor([[-1.0], [0.3], [2.0]])
    ((weights * tokens.log_prob - 1e-3 * tokens.log_prob_sum) * mask).sum().backward()
    gradients = {name: p.grad for name, p in arch.named_parameters()}
    arch.zero_grad(set_to_none=True)
    return (tokens.log_prob[mask], tokens.log_prob_sum[mask]), gradients


@pytest.mark.parametrize("name", ARCHS)
@pytest.mark.parametrize("kept", [0, 10**9], ids=["computed again", "kept"])
def test_output_layer_and_softmax_in_one_are_the_arch_as_it_is(monkeypatch, name, kept):
    monkeypatch.setattr(softmax, "_BLOCK_ELEMENTS", {"cpu": 5 * SYMBOLS})
    monkeypatch.setattr(softmax, "_KEPT_ELEMENTS", kept)
    arch, sample = build(ARCHS[name]), padded_batch()
    assert output_layer.find_output_layer(arch) is not None
    values, gradients = loss_and_gradients(arch, sample)
    scores = arch(**sample["net_input"])[0]
    assert scores.shape == (3, 7, SYMBOLS), "the arch is left as it was"

    monkeypatch.setattr(output_layer, "find_output_layer", lambda _: None)
    expected_values, expected_gradients = loss_and_gradients(arch, sample)
    for mine, other in zip(values, expected_values, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)
    assert gradients.keys() == expected_gradients.keys()
    for parameter, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[parameter], gradient, rtol=1e-4, atol=1e-4, msg=parameter)


class Largest(TorchDispatchMode):
    """The number of elements of the largest result of any operation that has a dimension of the vocabulary's size."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor) and SYMBOLS in value.shape:
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("name", ["transformer", "lstm", "fconv", "lightconv"])
def test_no_tensor_of_batch_length_and_vocabulary_comes_to_be(monkeypatch, name):
    monkeypatch.setattr(softmax, "_BLOCK_ELEMENTS", {"cpu": SYMBOLS})
    monkeypatch.setattr(softmax, "_KEPT_ELEMENTS", 0)
    arch, sample = build(ARCHS[name]), padded_batch()
    whole = sample["target"].numel() * SYMBOLS
    with Largest() as lean:
        loss_and_gradients(arch, sample)
    monkeypatch.setattr(output_layer, "find_output_layer", lambda _: None)
    with Largest() as plain:
        loss_and_gradients(arch, sample)
    assert lean.elements < whole <= plain.elements


def scaled(original):
    """A method whose result is twice the original's."""

    def method(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        return (result[0] * 2, *result[1:]) if isinstance(result, tuple) else result * 2

    return method


@pytest.mark.parametrize(
    "change",
    [
        *("model.forward", "model.get_normalized_probs", "model.get_targets", "decoder.forward"),
        *("decoder.output_layer", "decoder.get_normalized_probs", "hook on decoder", "hook on layer", "other layer"),
    ],
)
def test_an_arch_that_changes_what_comes_of_its_output_layer_runs_as_it_is(monkeypatch, change):
    arch, sample = build(ARCHS["transformer"]), padded_batch()
    layer = arch.decoder.output_projection
    if change == "hook on decoder":
        arch.decoder.register_forward_hook(lambda module, args, result: (result[0] * 2, *result[1:]))
    elif change == "hook on layer":
        layer.register_forward_hook(lambda module, args, result: result * 2)
    elif change == "other layer":
        arch.decoder.output_projection = type(
            "Twice", (torch.nn.Linear,), {"forward": scaled(torch.nn.Linear.forward)}
        )(layer.in_features, layer.out_features)
    else:
        owner, name = change.split(".")
        part = arch if owner == "model" else arch.decoder
        original = getattr(type(part), name)
        method = (lambda self, *_: sample["target"].flip(0)) if name == "get_targets" else scaled(original)
        part.__class__ = type("Changed", (type(part),), {name: method})
    assert output_layer.find_output_layer(arch) is None
    arch.eval()
    with torch.no_grad():
        tokens = batch_log_probs(arch, sample, PAD, smoothing=True)
        net_output = arch(**sample["net_input"])
        table = arch.get_normalized_probs(net_output, log_probs=True)
    torch.testing.assert_close(tokens.target, arch.get_targets(sample, net_output))
    assert_is_log_softmax((tokens.log_prob, tokens.log_prob_sum), table, tokens.target)


def test_a_failing_forward_leaves_the_arch_whole(monkeypatch):
    for name in ("transformer", "fconv"):
        arch, sample = build(ARCHS[name]), padded_batch()
        monkeypatch.setattr(arch.encoder, "forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batch_log_probs(arch, sample, PAD)
        monkeypatch.undo()
        assert arch(**sample["net_input"])[0].size(-1) == SYMBOLS


def test_limits_are_the_smallest_of_all_roles():
    pair = DualModel({"de-en": plain_model(), "en-de": plain_model()})
    assert pair.max_positions() == (20, 20)


def prepared_fconv_pair() -> DualModel:
    """For a beam of 3, by whose rows fconv's attention multiplies at once."""
    pair = DualModel({direction: build(ARCHS["fconv"]) for direction in ("a-b", "b-a")})
    pair.prepare_for_inference_(SimpleNamespace(generation=GenerationConfig(beam=3)))
    return pair


def test_a_pair_is_prepared_for_inference_as_each_of_its_models_would_be():
    pair = prepared_fconv_pair()
    assert sum(isinstance(module, BeamableMM) for module in pair.modules()) == 2
    assert not any(module.training for module in pair.modules())
    with pytest.raises(RuntimeError, match="cannot train"):
        pair.train()


def test_dual_inference_scores_sentences_that_share_no_source():
    """Targets of </s> alone are a single time step, which a beam's is too."""
    pair, dictionary = prepared_fconv_pair(), Dictionary()
    sources, targets = [torch.tensor([5 + i, 9, 2]) for i in range(3)], [torch.tensor([2])] * 3
    models = [pair.models["b-a"]]
    DualInferenceGenerator(
        SimpleNamespace(eos=2), models, (None, None), dictionary, True, Weights.of_alpha(0.5), lenpen=1.0
    )
    together = translation_log_probs(models, sources, targets, dictionary)
    plain = [build(ARCHS["fconv"]).eval()]
    torch.testing.assert_close(together, translation_log_probs(plain, sources, targets, dictionary))
    assert len(set(together.tolist())) == 3


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


def test_no_parameter_of_lightconv_is_left_to_chance():
    convolution = DynamicConv_scripatable(4, kernel_size=3)
    assert not convolution.has_conv_bias
    torch.nn.init.constant_(convolution.conv_bias, math.nan)
    convolution.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in convolution.parameters())
