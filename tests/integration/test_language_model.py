"""Frozen language models: what they score, and where they must not turn up."""

from __future__ import annotations

import math

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask
from helpers import PLUGIN, SOURCE, TARGET, TINY, TRANSFORMER_LM, fairseq_here, train, train_language_model

from dual_fairseq.plugin.checkpoint import load_state
from dual_fairseq.plugin.language_model import load_language_model

ADAPTIVE_LM = (
    "--arch transformer_lm --decoder-layers 1 --decoder-embed-dim 16 --decoder-ffn-embed-dim 32 "
    "--decoder-attention-heads 2 --criterion adaptive_loss --adaptive-softmax-cutoff 8,14 --ddp-backend legacy_ddp"
).split()


@pytest.fixture(scope="module")
def adaptive_lm(corpus, tmp_path_factory):
    return train_language_model(corpus / "lm" / SOURCE, tmp_path_factory.mktemp("adaptive"), *ADAPTIVE_LM)


@pytest.fixture(scope="module")
def bos_lm(corpus, tmp_path_factory):
    return train_language_model(
        corpus / "lm" / SOURCE, tmp_path_factory.mktemp("bos"), *TRANSFORMER_LM, "--add-bos-token"
    )


@pytest.fixture(params=["lstm", "transformer", "adaptive", "bos"])
def language_model(request, corpus, language_models, adaptive_lm, bos_lm):
    """(what we load, the plain fairseq model, dictionary) of every kind of language model."""
    path, language = {
        "lstm": (language_models[SOURCE], SOURCE),
        "transformer": (language_models[TARGET], TARGET),
        "adaptive": (adaptive_lm, SOURCE),
        "bos": (bos_lm, SOURCE),
    }[request.param]
    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{language}.txt"))
    state = load_state(str(path), "--src-lm")
    plain = LanguageModelingTask(state["cfg"].task, dictionary).build_model(state["cfg"].model)
    plain.load_state_dict(state["model"])
    plain.eval()
    return load_language_model(str(path), dictionary, language, "--src-lm"), plain, dictionary


def sentences(dictionary: Dictionary) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.cat([torch.randint(4, 22, (n,), generator=generator), torch.tensor([dictionary.eos()])])
        for n in (1, 9, 4, 4)
    ]


def padded(rows: list[torch.Tensor], pad: int, extra: int = 0) -> torch.Tensor:
    batch = torch.full((len(rows), max(map(len, rows)) + extra), pad)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    return batch


def test_log_probabilities_are_those_of_plain_fairseq_sentence_by_sentence(language_model):
    lm, plain, dictionary = language_model
    rows = sentences(dictionary)
    like = torch.zeros(1)
    got = lm.sentence_log_prob(padded(rows, dictionary.pad()), like)
    for row, log_prob in zip(rows, got, strict=True):
        start = [dictionary.bos(), dictionary.eos()] if lm.bos else [dictionary.eos()]
        previous = torch.cat([torch.tensor(start), row[:-1]])[None]
        with torch.no_grad():
            table = plain.get_normalized_probs(plain(previous), log_probs=True)[0, lm.bos :]
        expected = table[torch.arange(len(row)), row].sum()
        torch.testing.assert_close(log_prob, expected, rtol=1e-5, atol=1e-5)
    more_padding = lm.sentence_log_prob(padded(rows, dictionary.pad(), extra=5), like)
    torch.testing.assert_close(more_padding, got, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_takes_the_precision_of_the_run_and_answers_in_float32(language_model, dtype):
    lm, _, dictionary = language_model
    batch = padded(sentences(dictionary), dictionary.pad())
    full = lm.sentence_log_prob(batch, torch.zeros(1))
    half = lm.sentence_log_prob(batch, torch.zeros(1, dtype=dtype))
    assert half.dtype == torch.float32
    assert next(lm._model.parameters()).dtype == dtype
    torch.testing.assert_close(half, full, rtol=0.03, atol=0.3)


def test_a_language_model_with_bos_is_scored_as_it_was_trained(corpus, bos_lm):
    """fairseq's own validation perplexity, <s> left out of it, is that of our scores."""
    from fairseq.data.data_utils import load_indexed_dataset

    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{SOURCE}.txt"))
    lm = load_language_model(str(bos_lm), dictionary, SOURCE, "--src-lm")
    assert lm.bos and lm.max_positions == 1023, "<s> takes one of the model's 1,024 positions"
    valid = load_indexed_dataset(str(corpus / "lm" / SOURCE / "valid"), dictionary)
    nll = -sum(lm.sentence_log_prob(s[None].long(), torch.zeros(1)).item() for s in valid)
    run = fairseq_here(
        "validate", corpus / "lm" / SOURCE, "--task", "language_modeling", "--path", bos_lm, "--cpu", "--user-dir",
        PLUGIN, "--batch-size", 8, "--required-batch-size-multiple", 1, "--log-format", "json",
    )  # fmt: skip
    (record,) = run.logged("valid")
    loss = next(value for key, value in record.items() if key.endswith("loss")) * math.log(2)
    tokens = int(valid.sizes.sum())
    # fairseq counts the prediction of <s> from <s> as a token; a trained model is all but sure of it
    assert loss * (tokens + len(valid)) == pytest.approx(nll, rel=0.05)


def test_a_language_model_of_running_text_is_warned_of(corpus, language_models, tmp_path, caplog):
    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{SOURCE}.txt"))
    state = torch.load(language_models[SOURCE], weights_only=True)
    state["cfg"]["task"]["sample_break_mode"] = "none"
    torch.save(state, tmp_path / "running.pt")
    with caplog.at_level("WARNING", logger="dual_fairseq"):
        load_language_model(str(language_models[SOURCE]), dictionary, SOURCE, "--src-lm")
        assert "--sample-break-mode" not in caplog.text
        load_language_model(str(tmp_path / "running.pt"), dictionary, SOURCE, "--src-lm")
    assert "running.pt was trained with --sample-break-mode none" in caplog.text


def test_it_is_frozen_and_in_eval_mode(language_model):
    lm, _, dictionary = language_model
    assert not lm._model.training
    assert not any(p.requires_grad for p in lm._model.parameters())
    assert not lm.token_log_probs(padded(sentences(dictionary), dictionary.pad()), torch.zeros(1)).requires_grad


def test_padding_scores_zero(language_model):
    lm, _, dictionary = language_model
    batch = padded(sentences(dictionary), dictionary.pad(), extra=2)
    scores = lm.token_log_probs(batch, torch.zeros(1))
    assert (scores[batch.eq(dictionary.pad())] == 0).all() and (scores[batch.ne(dictionary.pad())] < 0).all()


def test_an_adaptive_softmax_lm_trains_a_pair(corpus, adaptive_lm, language_models, tmp_path):
    run = train(
        corpus / "dual", tmp_path, "--src-lm", adaptive_lm, "--tgt-lm", language_models[TARGET], "--max-update", 2,
        "--optimizer", "sgd", "--lr", 0.1,
    )  # fmt: skip
    assert all(record["gap_abs"] > 0 for record in run.logged("train_inner"))


def test_language_models_are_no_part_of_the_criterion(monkeypatch, corpus, lm_options, tmp_path):
    """Not in its parameters (the optimizer), its modules (DistributedDataParallel) or its state (checkpoints)."""
    import sys

    from fairseq_cli import train as fairseq_train

    from dual_fairseq.plugin.task import DualTranslationTask

    built = []
    build_criterion = DualTranslationTask.build_criterion

    def stop_after_building(self, *args, **kwargs):
        built.append(build_criterion(self, *args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(DualTranslationTask, "build_criterion", stop_after_building)
    argv = [
        "fairseq-train", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE,
        "-t", TARGET, *TINY["transformer"], "--criterion", "dual_cross_entropy", *lm_options, "--cpu",
        "--max-tokens", 300, "--optimizer", "sgd", "--save-dir", tmp_path,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(a) for a in argv])
    with pytest.raises(KeyboardInterrupt):
        fairseq_train.cli_main()
    (criterion,) = built
    assert len(criterion.task.priors.models()) == 2
    assert not list(criterion.parameters()) and not criterion.state_dict()
    assert [type(m).__name__ for m in criterion.modules()] == ["DualCrossEntropyCriterion"]


def test_a_run_that_goes_on_in_another_epoch_has_the_batches_of_one_that_was_not_stopped(corpus):
    def iterator(epoch: int):
        options = {
            "sample_break_mode": "eos",
            "tokens_per_sample": 1024,
            "dataset_impl": None,
            "use_plasma_view": False,
        }
        cfg = LanguageModelingConfig(data=str(corpus / "lm" / SOURCE), **options)
        task = LanguageModelingTask.setup_task(cfg)
        task.load_dataset("train", epoch=epoch)
        return task.get_batch_iterator(task.dataset("train"), max_tokens=300, seed=3, epoch=epoch)

    def batches(iterator) -> list[list[int]]:
        return [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=True)]

    unbroken, resumed = iterator(1), iterator(2)
    first, second = batches(unbroken), batches(unbroken)
    assert first != second == batches(resumed)
    assert (unbroken.epoch, unbroken.next_epoch_idx) == (resumed.epoch, resumed.next_epoch_idx) == (2, 3)
