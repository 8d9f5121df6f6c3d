"""Which language models a run has, when they are loaded, and which way round."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin import priors
from dual_fairseq.plugin.dual_inference import Weights
from dual_fairseq.plugin.priors import Priors

PLAIN, NOISY_CHANNEL, BAYES = Weights(), Weights(reverse=1.0, lm=1.0), Weights.of_alpha(0.5)


class Model:
    """A language model of 1 nat a token, so that scores can be told apart by length."""

    def __init__(self, dictionary: Dictionary, longest: int) -> None:
        self.dictionary, self.max_positions = dictionary, longest

    def sentence_log_prob(self, tokens, like):
        return -tokens.ne(self.dictionary.pad()).sum(-1).float()


@pytest.fixture
def loaded(monkeypatch):
    """(file, language, option) of every language model that was loaded."""
    calls = []

    def load(path, dictionary, language, option):
        calls.append((path.rsplit("/", 1)[-1], language, option))
        return Model(dictionary, 10 if language == "xx" else 7)

    monkeypatch.setattr(priors, "load_language_model", load)
    return calls


def dictionary(words: int) -> Dictionary:
    symbols = Dictionary()
    for i in range(words):
        symbols.add_symbol(f"w{i}")
    return symbols


def made(tmp_path, joint: bool = False, **changes) -> Priors:
    for name in ("x.pt", "y.pt"):
        (tmp_path / name).write_text(name)
    cfg = {
        "source_lang": "xx", "target_lang": "yy", "src_lm": str(tmp_path / "x.pt"), "tgt_lm": str(tmp_path / "y.pt"),
        "lm_score_cache": None, "cpu": True, "path": None,
    }  # fmt: skip
    return Priors(SimpleNamespace(**{**cfg, **changes}), (dictionary(9), dictionary(9 if joint else 5)))


def names(files) -> list[tuple[str, str]]:
    return [(option, path.rsplit("/", 1)[-1]) for option, path in files]


def test_language_models_are_loaded_once_and_bound_the_length(tmp_path, loaded):
    of_pair = made(tmp_path)
    assert of_pair.limit == float("inf")
    of_pair.prepare()
    source, target = of_pair.models()
    assert loaded == [("x.pt", "xx", "--src-lm"), ("y.pt", "yy", "--tgt-lm")]
    assert (len(source.dictionary), len(target.dictionary), of_pair.limit) == (13, 9, 7)
    assert of_pair.models() == (source, target) and len(loaded) == 2
    of_pair.forget_models()
    assert of_pair.models() == (source, target) and len(loaded) == 2, "without a cache the scores are still needed"


@pytest.mark.parametrize("joint", [True, False])
def test_one_file_serves_both_languages_only_of_a_joint_dictionary(tmp_path, loaded, joint):
    source, target = made(tmp_path, joint, tgt_lm=str(tmp_path / "x.pt")).models()
    assert (source is target) == joint and len(loaded) == (1 if joint else 2)
    source, target = made(tmp_path, joint=True).models()
    assert source is not target


@pytest.mark.parametrize("gone, said", [("src_lm", "--src-lm missing"), ("tgt_lm", "--tgt-lm missing")])
def test_a_language_model_that_is_missing_is_named(tmp_path, loaded, gone, said):
    with pytest.raises(UserError, match=said):
        made(tmp_path, **{gone: None}).models()
    with pytest.raises(UserError, match="--src-lm and --tgt-lm missing"):
        made(tmp_path, src_lm=None, tgt_lm=None).files()
    with pytest.raises(UserError, match="there is no such file"):
        made(tmp_path, **{gone: str(tmp_path / "gone.pt")}).prepare()
    with pytest.raises(UserError, match="there is no such file"):
        made(tmp_path, lm_score_cache=str(tmp_path / "cache"), **{gone: str(tmp_path / "gone.pt")}).prepare()


def test_the_checkpoint_s_own_language_models_follow_the_languages(tmp_path):
    of_pair = made(tmp_path)
    assert of_pair.options() == {
        "source_lang": "xx", "src_lm": str(tmp_path / "x.pt"), "tgt_lm": str(tmp_path / "y.pt"),
    }  # fmt: skip
    as_named = [("--src-lm", "x.pt"), ("--tgt-lm", "y.pt")]
    assert of_pair.as_trained and names(of_pair.files()) == as_named
    of_pair.trained |= {"source_lang": "yy"}
    assert not of_pair.as_trained and names(of_pair.files()) == as_named[::-1]
    of_pair.trained |= {"src_lm": "another"}
    assert names(of_pair.files()) == as_named, "those of the command line are taken as they are named"


def test_scores_of_both_sides_come_from_the_cache(tmp_path, loaded):
    of_pair = made(tmp_path, lm_score_cache=str(tmp_path / "cache"))
    sides = [[torch.tensor([5] * n + [2]) for n in lengths] for lengths in ((3, 1, 2), (5, 8, 1))]
    sizes = [np.array([len(s) for s in side]) for side in sides]
    pairs = LanguagePairDataset(
        sides[0], sizes[0], of_pair.dictionaries[0], sides[1], sizes[1], of_pair.dictionaries[1]
    )
    assert of_pair.cached_scores(pairs, "train") is None, "no cache is in use before λ > 0 asks for it"
    of_pair.prepare()
    assert not loaded
    log_p_x, log_p_y = of_pair.cached_scores(pairs, "train")
    assert log_p_x.tolist() == [-4, -2, -3]
    np.testing.assert_array_equal(log_p_y, np.array([-6, np.nan, -2], dtype=np.float32))
    assert of_pair.limit == 7 and len(loaded) == 2
    of_pair.forget_models()
    warm = made(tmp_path, lm_score_cache=str(tmp_path / "cache"))
    warm.prepare()
    assert warm.cached_scores(pairs, "train")[0].tolist() == [-4, -2, -3]
    assert warm.limit == 7 and len(loaded) == 2, "a warm cache needs no language model"
    of_pair.models()
    assert len(loaded) == 4, "they were forgotten"
    assert sorted(p.name.split(".")[1] for p in (tmp_path / "cache").glob("train.*.npy")) == ["xx", "yy"]


def test_dual_inference_loads_what_counts(tmp_path, loaded):
    of_pair = made(tmp_path)
    lms = of_pair.inference_models(NOISY_CHANNEL)
    assert lms[0] is None and loaded == [("y.pt", "yy", "--tgt-lm")]
    assert of_pair.inference_models(BAYES)[1] is lms[1] and len(loaded) == 2, "each file once"
    assert None not in of_pair.inference_models(PLAIN), "all components are printed, to tune on"
    with pytest.raises(UserError, match=r"--tgt-lm missing: dual inference .* of yy"):
        made(tmp_path, tgt_lm=None).inference_models(NOISY_CHANNEL)
    with pytest.raises(UserError, match=r"--src-lm missing: dual inference .* of xx"):
        made(tmp_path, src_lm=None).inference_models(BAYES)
    assert made(tmp_path, src_lm=None).inference_models(PLAIN)[0] is None
    of_one = made(tmp_path, tgt_lm=str(tmp_path / "x.pt"))
    source, target = of_one.inference_models(BAYES)
    assert (len(source.dictionary), len(target.dictionary)) == (13, 9), "one file, two dictionaries"


@pytest.mark.parametrize("source, target", [("xx", "yy"), ("yy", "xx")])
def test_dual_inference_falls_back_on_the_language_models_of_training(tmp_path, loaded, source, target):
    of_pair = made(tmp_path, source_lang=source, target_lang=target, src_lm=None, tgt_lm=None)
    of_pair.recorded = {"source_lang": "xx", "src_lm": str(tmp_path / "x.pt"), "tgt_lm": str(tmp_path / "y.pt")}
    of_pair.inference_models(PLAIN)
    file = {"xx": "x.pt", "yy": "y.pt"}
    assert loaded == [(file[source], source, "--src-lm"), (file[target], target, "--tgt-lm")]


def test_dual_inference_finds_the_language_models_of_the_run(tmp_path, loaded):
    for language in ("xx", "yy"):
        (tmp_path / "run" / "lm" / language).mkdir(parents=True)
        (tmp_path / "run" / "lm" / language / "checkpoint_best.pt").write_text("")
    first = str(tmp_path / "run" / "dual" / "checkpoint_best.pt")
    of_pair = made(tmp_path, src_lm=None, tgt_lm=None, path=f"{first}:{tmp_path / 'elsewhere.pt'}")
    assert None not in of_pair.inference_models(PLAIN) and len(loaded) == 2
