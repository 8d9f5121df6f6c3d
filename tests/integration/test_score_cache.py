"""Language model scores kept on disk: equal to those computed on the fly, never stale, never half written."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import load_indexed_dataset
from helpers import SOURCE, TARGET, parameter_difference, train, train_by_two

from dual_fairseq.common import progress
from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin import score_cache
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.plugin.score_cache import ScoreCache, cache_key

OPTIONS = ("--optimizer", "adam", "--lr", 0.01, "--dual-lambda", 0.05, "--dropout", 0.1, "--num-workers", 0)


@pytest.fixture
def side(corpus, language_models):
    """Dictionary, sentences, language model file of one language."""
    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{SOURCE}.txt"))
    sentences = load_indexed_dataset(str(corpus / "dual" / f"train.{SOURCE}-{TARGET}.{SOURCE}"), dictionary)
    return dictionary, sentences, str(language_models[SOURCE])


def never_load():
    raise AssertionError("the language model was loaded")


def test_scores_are_those_of_the_language_model_sentence_by_sentence(side, tmp_path, monkeypatch):
    dictionary, sentences, lm_path = side
    monkeypatch.setattr(score_cache, "_BATCH_TOKENS", 50)
    lm = load_language_model(lm_path, dictionary, SOURCE, "--src-lm")
    cache = ScoreCache(str(tmp_path), cpu=True)
    scores = cache.scores(sentences, sentences.sizes, dictionary, lm_path, lambda: lm, "train")
    assert scores.log_probs.dtype == np.float32 and scores.log_probs.shape == (len(sentences),)
    for i in range(len(sentences)):
        one = lm.sentence_log_prob(sentences[i][None].long(), torch.zeros(())).item()
        assert scores.log_probs[i] == pytest.approx(one, abs=1e-4)
    again = ScoreCache(str(tmp_path), cpu=True).scores(
        sentences, sentences.sizes, dictionary, lm_path, never_load, "train"
    )
    assert isinstance(again.log_probs, np.memmap)
    assert np.array_equal(again.log_probs, scores.log_probs) and again.max_positions == scores.max_positions


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(side, tmp_path, monkeypatch, caplog, capsys):
    dictionary, sentences, lm_path = side
    monkeypatch.setattr(score_cache, "_BATCH_TOKENS", 200)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    lm = load_language_model(lm_path, dictionary, SOURCE, "--src-lm")
    with caplog.at_level("INFO", logger=score_cache.__name__):
        ScoreCache(str(tmp_path), cpu=True).scores(
            sentences, sentences.sizes, dictionary, lm_path, lambda: lm, "train.xx"
        )
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("LM scores of train.xx: ")]
    assert len(lines) > 2 and lines[-1] == f"LM scores of train.xx: {len(sentences)} of {len(sentences)}"
    assert "\r" not in capsys.readouterr().err


def test_the_key_follows_language_model_dictionary_and_sentences(side, tmp_path):
    dictionary, sentences, lm_path = side
    key = cache_key(lm_path, dictionary, sentences)
    other_lm = tmp_path / "lm.pt"
    shutil.copy(lm_path, other_lm)
    assert cache_key(str(other_lm), dictionary, sentences) == key, "the name of the file is no part of it"
    with open(other_lm, "ab") as file:
        file.write(b"\0")
    other_dictionary = Dictionary()
    for symbol in reversed(dictionary.symbols[4:]):
        other_dictionary.add_symbol(symbol)
    prefix = tmp_path / "data"
    for suffix in (".idx", ".bin"):
        shutil.copy(sentences._path + suffix, f"{prefix}{suffix}")
    content = bytearray((tmp_path / "data.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "data.bin").write_bytes(content)
    keys = {
        key,
        cache_key(str(other_lm), dictionary, sentences),
        cache_key(lm_path, other_dictionary, sentences),
        cache_key(lm_path, dictionary, load_indexed_dataset(str(prefix), dictionary)),
        cache_key(lm_path, dictionary, [s.clone() for s in sentences]),
    }
    assert len(keys) == 5


def test_an_interrupted_or_failed_write_leaves_nothing_that_is_believed(side, tmp_path, monkeypatch):
    dictionary, sentences, lm_path = side
    lm = load_language_model(lm_path, dictionary, SOURCE, "--src-lm")

    def compute():
        return ScoreCache(str(tmp_path), cpu=True).scores(
            sentences, sentences.sizes, dictionary, lm_path, lambda: lm, "train"
        )

    def full(file, *_, **__):
        file.write(b"\x93NUMPY")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_cache.np, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        compute()
    assert not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    expected = compute().log_probs.copy()

    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-40])  # no crash of ours does this
    with pytest.raises(UserError, match="remove it"):
        compute()
    path.unlink()
    assert np.array_equal(compute().log_probs, expected)


def test_a_directory_that_cannot_be_used_is_refused_by_name_before_any_work(side, tmp_path):
    dictionary, sentences, lm_path = side
    (tmp_path / "file").write_text("")
    cache = ScoreCache(str(tmp_path / "file" / "cache"), cpu=True)
    with pytest.raises(UserError, match="--lm-score-cache"):
        cache.scores(sentences, sentences.sizes, dictionary, lm_path, never_load, "train")


def test_a_run_with_a_cache_is_the_run_without_and_a_warm_one_loads_no_language_model(corpus, lm_options, tmp_path):
    options = (*lm_options, *OPTIONS, "--max-epoch", 2, "--optimizer", "sgd", "--lr", 0.1)
    cache = ("--lm-score-cache", tmp_path / "cache")
    plain = train(corpus / "dual", tmp_path / "plain", *options)
    cold = train(corpus / "dual", tmp_path / "cold", *options, *cache)
    warm = train(corpus / "dual", tmp_path / "warm", *options, *cache)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4
    assert ", frozen" in plain.output and ", frozen" in cold.output and ", frozen" not in warm.output
    assert parameter_difference(tmp_path / "plain", tmp_path / "cold") < 1e-5
    assert parameter_difference(tmp_path / "cold", tmp_path / "warm") == 0
    for mine, other in zip(warm.logged("valid"), plain.logged("valid"), strict=True):
        assert mine["valid_gap_sq"] == pytest.approx(other["valid_gap_sq"], rel=1e-4)


def test_several_processes_share_the_work_over_several_shards(corpus, lm_options, tmp_path):
    data = shutil.copytree(corpus / "dual", tmp_path / "second")
    for language in (SOURCE, TARGET):  # another shard: the validation text as training text
        for suffix in ("bin", "idx"):
            name = f"{SOURCE}-{TARGET}.{language}.{suffix}"
            shutil.copy(data / f"valid.{name}", data / f"train.{name}")
    shards = f"{corpus / 'dual'}:{data}"
    options = (*lm_options, *OPTIONS, "--dropout", 0, "--max-epoch", 2)
    train_by_two(shards, tmp_path / "two", *options, "--lm-score-cache", tmp_path / "cache2")
    train(shards, tmp_path / "one", *options, "--lm-score-cache", tmp_path / "cache1", "--update-freq", 2)
    files = {p.name: p for p in (tmp_path / "cache1").glob("*.npy")}
    assert len(files) == 6
    for path in (tmp_path / "cache2").glob("*.npy"):
        np.testing.assert_allclose(np.load(path), np.load(files.pop(path.name)), atol=1e-4)
    assert not files
    assert parameter_difference(tmp_path / "one", tmp_path / "two") < 1e-4


def test_with_a_cache_a_resumed_run_is_bit_identical(corpus, lm_options, tmp_path):
    options = (
        *lm_options, *OPTIONS, "--lm-score-cache", tmp_path / "cache", "--max-update", 12,
        "--save-interval-updates", 1,
    )  # fmt: skip
    unbroken = train(corpus / "dual", tmp_path / "unbroken", *options)
    updates_an_epoch = max(r["num_updates"] for r in unbroken.logged("train_inner") if r["epoch"] == 1)
    stopped = int(updates_an_epoch) + 2
    (tmp_path / "broken").mkdir()
    (source,) = (tmp_path / "unbroken").glob(f"checkpoint_*_{stopped}.pt")
    shutil.copy(source, tmp_path / "broken" / "checkpoint_last.pt")
    resumed = train(corpus / "dual", tmp_path / "broken", *options)
    assert resumed.logged("train_inner")[0]["num_updates"] == stopped + 1
    assert parameter_difference(tmp_path / "unbroken", tmp_path / "broken") == 0
