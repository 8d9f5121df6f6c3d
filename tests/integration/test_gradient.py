"""One SGD step of a real ``fairseq-train`` run against the paper's formula, computed here in float64.

Nothing of the plugin's mathematics is used: plain fairseq models score one sentence at a time (no padding, no order),
and the gradient is put together from ∇NLL and ∇log P with the weights of the formula.
"""

from __future__ import annotations

import math

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import load_indexed_dataset
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.translation import TranslationTask
from helpers import SOURCE, TARGET, train

from dual_fairseq.plugin.checkpoint import load_state

LAMBDA, LAMBDA_REVERSE, SMOOTHING, LEARNING_RATE = 0.1, 0.3, 0.1, 0.25
FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"


def log_softmax_of_sentence(logits: torch.Tensor, sentence: torch.Tensor):
    """Token log-probabilities (T,) and the log-softmax (T, V) they are taken from."""
    table = logits[0].log_softmax(-1)
    return table[torch.arange(len(sentence)), sentence], table


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def started(request, corpus, tmp_path_factory):
    return start(corpus, request.param, tmp_path_factory.mktemp("start"))


def start(corpus, model, folder):
    """A model, its options, and its checkpoint after three updates."""
    options = ("--dropout", 0, "--optimizer", "sgd", "--lr", LEARNING_RATE, "--label-smoothing", SMOOTHING)
    if model == "lstm":
        options += ("--encoder-dropout-in", 0, "--encoder-dropout-out", 0, "--decoder-dropout-in", 0)
        options += ("--decoder-dropout-out", 0)
    updates = ("--dual-lambda", 0, "--max-update", 3, "--disable-validation")
    train(corpus / "dual", folder, *updates, *options, model=model)
    return model, options, folder / "checkpoint_last.pt"


@pytest.mark.parametrize("clip", [0, 3], ids=["unclipped", "clipped"])
def test_one_sgd_step_is_the_formula(corpus, language_models, lm_options, tmp_path, started, clip):
    data, (model, options, before) = corpus / "dual", started
    run = train(
        data, tmp_path / "step", "--finetune-from-model", before, *lm_options, "--dual-lambda", LAMBDA,
        "--dual-lambda-reverse", LAMBDA_REVERSE, "--dual-gap-clip", clip, "--max-update", 1, "--batch-size", 200,
        "--disable-validation",
        "--max-tokens", 9999, *options, model=model,
    )  # fmt: skip
    (record,) = run.logged("train_inner")

    expected, gaps, bits = gradient_of_the_formula(data, before, language_models, clip)
    for name, value in bits.items():
        assert record[name] == pytest.approx(value, abs=0.0011), name
    turned = torch.where(gaps > 0, 2 * LAMBDA * gaps, -2 * LAMBDA_REVERSE * gaps) > 1
    assert 0 < turned.double().mean() < 1, "the test sees no negative weight"
    assert record["neg_weight"] == pytest.approx(turned.double().mean().item(), abs=1e-4)
    assert record["gap_abs"] == pytest.approx(gaps.abs().mean().item(), abs=0.001)
    assert record["gap_sq"] == pytest.approx(gaps.square().mean().item(), rel=0.001)
    assert record["gap_mean"] == pytest.approx(gaps.mean().item(), abs=0.001)
    if clip:
        assert gaps.abs().max() > clip, "the clip was not felt"

    before = load_state(str(before), "--path")["model"]
    after = load_state(str(tmp_path / "step" / "checkpoint_last.pt"), "--path")["model"]
    assert expected.keys() <= before.keys()
    for direction in (FORWARD, REVERSE):
        keys = [key for key in expected if key.startswith(f"models.{direction}.")]
        step = torch.cat([((before[k].double() - after[k].double()) / LEARNING_RATE).flatten() for k in keys])
        formula = torch.cat([expected[k].flatten() for k in keys])
        assert ((step - formula).norm() / formula.norm()).item() < 1e-3


def gradient_of_the_formula(data, start, language_models, clip):
    dictionaries = {lang: Dictionary.load(str(data / f"dict.{lang}.txt")) for lang in (SOURCE, TARGET)}
    sentences = {
        lang: [
            torch.as_tensor(s).long()
            for s in load_indexed_dataset(str(data / f"train.{FORWARD}.{lang}"), dictionaries[lang])
        ]
        for lang in (SOURCE, TARGET)
    }
    eos = dictionaries[SOURCE].eos()

    def shifted(sentence):
        return torch.cat([torch.tensor([eos]), sentence[:-1]])[None]

    priors = {}
    for lang, path in language_models.items():
        state = load_state(str(path), "--src-lm")
        lm = LanguageModelingTask(state["cfg"].task, dictionaries[lang]).build_model(state["cfg"].model)
        lm.load_state_dict(state["model"])
        lm.double().eval()
        with torch.no_grad():
            priors[lang] = torch.stack([
                log_softmax_of_sentence(lm(shifted(s))[0], s)[0].sum() for s in sentences[lang]
            ])  # fmt: skip

    state = load_state(str(start), "--path")
    models, sums, tokens = {}, {}, {}
    for direction, source, target in ((FORWARD, SOURCE, TARGET), (REVERSE, TARGET, SOURCE)):
        task = TranslationTask(state["cfg"].task, dictionaries[source], dictionaries[target])
        task.cfg.eval_bleu = False
        model = task.build_model(state["cfg"].model)
        prefix = f"models.{direction}."
        model.load_state_dict({k[len(prefix) :]: v for k, v in state["model"].items() if k.startswith(prefix)})
        model.double().eval()
        log_probs, smoothed_nll = [], []
        for x, y in zip(sentences[source], sentences[target], strict=True):
            logits = model(x[None], torch.tensor([len(x)]), shifted(y))[0]
            token_log_prob, table = log_softmax_of_sentence(logits, y)
            vocab = table.size(-1)
            q = torch.full_like(table, SMOOTHING / (vocab - 1))
            q[torch.arange(len(y)), y] = 1 - SMOOTHING
            log_probs.append(token_log_prob.sum())
            smoothed_nll.append(-(q * table).sum())
        tokens[direction] = sum(map(len, sentences[target]))
        models[direction] = model
        sums[direction] = torch.stack(log_probs), torch.stack(smoothed_nll).sum()

    with torch.no_grad():
        gaps = priors[SOURCE] + sums[FORWARD][0] - priors[TARGET] - sums[REVERSE][0]
        bounded = gaps.clamp(-clip, clip) if clip else gaps
        squares = torch.where(gaps.abs() > clip, 2 * clip * gaps.abs() - clip**2, gaps**2) if clip else gaps**2
        total = sum(tokens.values())
        loss = sum(smoothed for _, smoothed in sums.values()) + (LAMBDA + LAMBDA_REVERSE) * squares.sum()
        nll = {direction: -log_probs.sum() for direction, (log_probs, _) in sums.items()}
        bits = {f"nll_loss_{direction}": nll[direction] / tokens[direction] for direction in nll}
        bits |= {"nll_loss": sum(nll.values()) / total, "loss": loss / total}
        bits = {name: value.item() / math.log(2) for name, value in bits.items()}
    gradient = {}
    for direction, sign, lam in ((FORWARD, 1, LAMBDA), (REVERSE, -1, LAMBDA_REVERSE)):
        log_probs, smoothed_nll = sums[direction]
        objective = smoothed_nll + (sign * 2 * lam * bounded * log_probs).sum()
        named = dict(models[direction].named_parameters())
        grads = torch.autograd.grad(objective, list(named.values()))
        for name, grad in zip(named, grads, strict=True):
            gradient[f"models.{direction}.{name}"] = grad / (total / 2)
    return gradient, gaps, bits
