"""CTranslate2 in place of fairseq: the same translations and scores; what it cannot do is refused or falls back."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from helpers import (
    SOURCE,
    SPLITS,
    TARGET,
    TRANSFORMER_LM,
    fairseq_here,
    preprocessed,
    sentence_pairs,
    train,
    train_language_model,
)

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair import convert, translator
from dual_fairseq.pair.engine import BLOCK_TOKENS, CTranslate2
from dual_fairseq.pair.evaluate import read_cut_off, read_engine
from dual_fairseq.pair.export import export
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.probabilities import score_pairs
from dual_fairseq.pair.translator import DualTranslator
from dual_fairseq.plugin.log_probs import language_model_log_probs
from dual_fairseq.plugin.ranking import Weights, read_component_line

DIRECTIONS = [(SOURCE, TARGET), (TARGET, SOURCE)]
TEXTS = {
    language: ["", "nowhere known", *dict.fromkeys(pair[i] for pair in sentence_pairs(120, 9))]
    for i, language in enumerate((SOURCE, TARGET))
}


@pytest.fixture(scope="module")
def dest(corpus, tmp_path_factory) -> Path:
    return preprocessed(corpus, tmp_path_factory.mktemp("preprocessed"), "none")


@pytest.fixture(scope="module", autouse=True)
def _cache_of_the_module(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def checkpoint(trained_pair) -> Path:
    return trained_pair[0] / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def lms(language_models) -> dict[str, str]:
    """Options that name the language models: of the source an LSTM, of the target a Transformer."""
    return {"src_lm": str(language_models[SOURCE]), "tgt_lm": str(language_models[TARGET])}


def load(checkpoint: Path, dest: Path, **options: object) -> DualTranslator:
    return DualTranslator.from_pretrained(checkpoint, dest, "cpu", **options)


def test_what_fairseq_translates_has_batches_of_the_size_that_was_asked_for(checkpoint, dest, monkeypatch):
    sizes = []

    def search(*arguments):
        sizes.append(arguments[-1])
        return iter(())

    monkeypatch.setattr(translator, "search", search)
    pair = load(checkpoint, dest, engine="auto")
    for options in ({}, {"sampling": True}):
        with pytest.raises(IndexError):  # nothing was found
            pair.translate_nbest(TEXTS[SOURCE][5:6], SOURCE, TARGET, max_tokens=500, **options)
    assert sizes == [BLOCK_TOKENS, 500]


@pytest.mark.parametrize("source, target", DIRECTIONS)
def test_it_translates_as_fairseq_does(source, target, checkpoint, dest):
    plain, fast = (load(checkpoint, dest, engine=engine) for engine in ("fairseq", "ctranslate2"))
    for options in ({}, {"lenpen": 0.0}, {"beam": 1}, {"max_len_a": 0, "max_len_b": 4}):
        nbest = options.get("beam", 5)
        expected = plain.translate_nbest(TEXTS[source], source, target, nbest=nbest, **options)
        found = fast.translate_nbest(TEXTS[source], source, target, nbest=nbest, max_tokens=500, **options)
        assert [of[0].text for of in found] == [of[0].text for of in expected]
        # below the best, lists may differ; no rank is worse
        for mine, theirs in zip(found, expected, strict=True):
            for hypothesis, other in zip(mine, theirs, strict=True):
                assert hypothesis.score > other.score - 1e-4
        scores = [(mine[0].score, theirs[0].score) for mine, theirs in zip(found, expected, strict=True)]
        assert np.ptp(np.array(scores), axis=1).max() < 1e-4


def test_exported_models_translate_by_the_same_command(checkpoint, dest, tmp_path, capfd):
    """From a folder with both directions, the languages name the file."""
    text, out = tmp_path / "text", tmp_path / "out"
    shutil.copytree(dest, out / "text")  # as export copies it from a run
    for source, target in DIRECTIONS:
        export(checkpoint, f"{source}-{target}", out / f"{source}-{target}.pt", dest / "dual")
    for source, target in DIRECTIONS:
        text.write_text("".join(f"{line}\n" for line in TEXTS[source]))
        printed = []
        for run, engine in ((checkpoint, "fairseq"), (out, "fairseq"), (out, "ctranslate2")):
            main(["translate", str(run), *["--dest", str(dest)] * (run == checkpoint), "-s", source, "-t", target,
                  "--cpu", "--input", str(text), "--engine", engine])  # fmt: skip
            printed.append(capfd.readouterr().out)
        assert printed[0] == printed[1] == printed[2]
    assert load(out / f"{SOURCE}-{TARGET}.pt", dest, engine="auto", int8=True).engine is not None


def test_a_translation_that_does_not_end_is_bounded_by_its_own_sentence(checkpoint, dest):
    texts = [TEXTS[SOURCE][5], " ".join(TEXTS[SOURCE][5:9])]
    plain, fast = (load(checkpoint, dest, engine=engine) for engine in ("fairseq", "ctranslate2"))
    bound = {"max_len_a": 0.3, "max_len_b": 1, "nbest": 5}
    found, expected = ([
        [(h.tokens, h.cut_off) for h in of] for of in pair.translate_nbest(texts, SOURCE, TARGET, **bound)
    ] for pair in (fast, plain))  # fmt: skip
    assert found == expected
    assert {cut_off for of in found for _, cut_off in of} == {True, False}


@pytest.mark.parametrize("source, target", DIRECTIONS)
def test_the_limit_of_each_sentence_is_that_of_fairseq(source, target, checkpoint, dest):
    bound = {"max_len_a": 0.3, "max_len_b": 1}
    plain, fast = (
        load(checkpoint, dest, engine=engine).translate_nbest(TEXTS[source], source, target, **bound)
        for engine in ("fairseq", "ctranslate2")
    )
    assert [(of[0].text, of[0].cut_off) for of in fast] == [(of[0].text, of[0].cut_off) for of in plain]
    assert 0 < sum(of[0].cut_off for of in plain) < len(plain) - 1  # the first text is empty


def test_the_limit_of_the_training_text_counts(checkpoint, dest, tmp_path):
    shutil.copytree(dest, own := tmp_path / "dest")
    record = {"ratio": 1.0, "max_len_a": 0.5, "max_len_b": 1}
    (own / "dual" / "lengths.json").write_text(json.dumps({f"{SOURCE}-{TARGET}": record}))
    fast = load(checkpoint, own, engine="ctranslate2").translate_nbest(TEXTS[SOURCE], SOURCE, TARGET)
    for text, (best,) in zip(TEXTS[SOURCE], fast, strict=True):
        assert len(best.tokens.split()) <= 0.5 * (len(text.split()) + 1) + 1
    assert any(best.cut_off for (best,) in fast)


@pytest.mark.parametrize("source, target", DIRECTIONS)
def test_dual_inference_scores_as_fairseq_does(source, target, checkpoint, dest, lms):
    options = {"dual_inference": 0.6, **lms}
    plain = load(checkpoint, dest, **options).translate_nbest(TEXTS[source], source, target, nbest=5)
    fast = load(checkpoint, dest, engine="ctranslate2", **options)
    compared = 0
    for mine, theirs in zip(fast.translate_nbest(TEXTS[source], source, target, nbest=5), plain, strict=True):
        assert [h.score for h in mine] == sorted((h.score for h in mine), reverse=True)
        scores = {h.tokens: h.score for h in theirs}
        for hypothesis in mine:
            if hypothesis.tokens in scores:
                assert hypothesis.score == pytest.approx(scores[hypothesis.tokens], abs=1e-3)
                compared += 1
    assert compared > 4 * len(plain)
    assert sorted(generator is None for generator in fast.engine._generators.values()) == [False, True]


def test_log_probabilities_are_those_of_fairseq(checkpoint, corpus, lms):
    pair, task = load_pair(checkpoint, corpus / "dual", device="cpu", overrides=lms)
    random = torch.Generator().manual_seed(3)
    lengths = [1100, 1, 7, 0, 30, 2, 1]
    x, y = (
        [torch.tensor([*torch.randint(4, 20, (n,), generator=random), 2]) if n else torch.tensor([]).long() for n in of]
        for of in (lengths, lengths[::-1])
    )
    y[5] = y[3]  # empty, while its source is not
    expected = score_pairs(pair, task, x, y, task.priors.models())
    done: list[int] = []
    engine = CTranslate2(pair, task, checkpoint)
    found = score_pairs(pair, task, x, y, task.priors.models(), advance=done.append, engine=engine)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-3, err_msg=name)
    assert np.isnan(found["log_p_y_given_x"]).tolist() == [True, False, False, True, False, True, True]
    assert sum(done) == 3 * 2 + 5 + 4
    eight_bits = score_pairs(pair, task, x, y, engine=CTranslate2(pair, task, checkpoint, int8=True))
    known = ~np.isnan(expected["log_p_y_given_x"])
    ratio = eight_bits["log_p_y_given_x"][known] / expected["log_p_y_given_x"][known]
    assert (ratio != 1).any()
    np.testing.assert_allclose(ratio, 1, atol=0.05)


def test_a_language_model_that_begins_with_bos(corpus, tmp_path, checkpoint):
    lm = train_language_model(corpus / "lm" / TARGET, tmp_path, *TRANSFORMER_LM, "--add-bos-token")
    pair, task = load_pair(checkpoint, corpus / "dual", device="cpu", overrides={"src_lm": None, "tgt_lm": str(lm)})
    _, model = task.priors.inference_models(Weights(lm=1.0))
    text = [torch.tensor([5, 6, 7, 2]), torch.tensor([9, 2])]
    engine = CTranslate2(pair, task, checkpoint)
    like = torch.zeros(())
    found = engine.language_model_log_probs(model, text, like)
    assert model.bos and engine._generators[str(lm)] is not None
    torch.testing.assert_close(found, language_model_log_probs(model, text, like), rtol=1e-4, atol=1e-4)


# --- conversion


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder for converted models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dual-fairseq" / "ctranslate2"


def test_models_are_converted_once_and_anew_when_the_checkpoint_changes(checkpoint, dest, cache, tmp_path, monkeypatch):
    own = Path(shutil.copy(checkpoint, tmp_path / "checkpoint_best.pt"))
    for name, age in (("old", 100), ("used", 80)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (0, time.time() - age * 24 * 3600))
    load(own, dest, engine="ctranslate2")
    (first,) = (path for path in cache.iterdir() if path.name != "used")
    assert {path.name for path in first.iterdir()} >= {f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"}
    assert not list(first.rglob("*.pt"))
    with monkeypatch.context() as patch:
        patch.delattr(convert, "_convert")
        load(own, dest, engine="ctranslate2")
        shutil.copytree(cache, tmp_path / "ctranslate2")  # what a run brings is not read
        shutil.rmtree(cache)
        with pytest.raises(NameError):
            load(own, dest, engine="ctranslate2")
    state = torch.load(own, weights_only=False)
    state["model"] = {key: value * 1.5 for key, value in state["model"].items()}
    torch.save(state, own)
    plain, fast = (load(own, dest, engine=engine) for engine in ("fairseq", "ctranslate2"))
    assert fast.translate(TEXTS[SOURCE], SOURCE, TARGET) == plain.translate(TEXTS[SOURCE], SOURCE, TARGET)
    (second,) = cache.iterdir()
    assert second.name != first.name


def test_where_nothing_can_be_kept_models_are_converted_for_the_process(checkpoint, dest, cache):
    cache.parent.mkdir(parents=True)
    cache.touch()
    assert load(checkpoint, dest, engine="ctranslate2").translate(["s1 s2"], SOURCE, TARGET)
    assert [*cache.parent.iterdir()] == [cache] and not cache.read_bytes()


def test_a_model_that_computes_something_else_is_refused(checkpoint, dest, cache, monkeypatch):

    def other(state, direction, path):
        exported = export_state(state, direction, path)
        exported["model"]["decoder.layers.0.fc1.weight"] *= -1
        return exported

    export_state = convert.export_state
    monkeypatch.setattr(convert, "export_state", other)
    with pytest.raises(UserError, match="--engine ctranslate2: computes other log-probabilities than fairseq"):
        load(checkpoint, dest, engine="ctranslate2")
    assert not list(cache.iterdir())


# --- what it cannot do


def refused(message: str, caplog, checkpoint: object, dest: Path, **options: object) -> None:
    """By name with ``ctranslate2``; with ``auto`` a warning, and fairseq."""
    with pytest.raises(UserError, match=f"--engine ctranslate2: {message}"):
        load(checkpoint, dest, engine="ctranslate2", **options)
    caplog.clear()
    assert load(checkpoint, dest, engine="auto", **options).engine is None
    assert message in caplog.text and "--engine auto: fairseq translates" in caplog.text


def test_what_it_cannot_load_is_refused_or_left_to_fairseq(checkpoint, dest, caplog, monkeypatch, tmp_path):
    refused("does not translate with several pairs together", caplog, [checkpoint, checkpoint], dest)
    refused("takes a model as it was trained, without decoder_layers", caplog, checkpoint, dest, decoder_layers=1)
    with pytest.raises(UserError, match="--int8: fairseq does not compute in 8 bits"):
        load(checkpoint, dest, int8=True)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ctranslate2", None)
        refused("is not installed: pip install ctranslate2", caplog, checkpoint, dest)
    assert load(checkpoint, dest, engine="auto").engine is not None
    train(dest / "dual", tmp_path, "--dual-lambda", 0, "--max-update", 1, "--optimizer", "adam", model="lstm")
    refused("runs Transformers only", caplog, tmp_path / "checkpoint_last.pt", dest)


def test_options_of_generation_are_refused_or_left_to_fairseq(checkpoint, dest, caplog):
    texts, option = TEXTS[SOURCE][:20], {"no_repeat_ngram_size": 2}
    message = "CTranslate2 does not translate with no_repeat_ngram_size"
    with pytest.raises(UserError, match=f"--engine ctranslate2: {message}; give --engine fairseq"):
        load(checkpoint, dest, engine="ctranslate2").translate(texts, SOURCE, TARGET, **option)
    found = load(checkpoint, dest, engine="auto").translate(texts, SOURCE, TARGET, **option)
    assert f"--engine auto: fairseq translates, because {message}" in caplog.text
    assert found == load(checkpoint, dest).translate(texts, SOURCE, TARGET, **option)


# --- commands


def test_translate_and_score_take_the_engine(checkpoint, dest, lms, tmp_path, capfd):
    text = tmp_path / "text"
    text.write_text("".join(f"{line}\n" for line in TEXTS[SOURCE]))
    outputs = []
    for engine in ("fairseq", "ctranslate2"):
        out = tmp_path / engine
        main(["translate", str(checkpoint), "--dest", str(dest), "-t", TARGET, "--cpu", "--input", str(text), "-o",
              str(out), "--engine", engine])  # fmt: skip
        main(["score", str(checkpoint), "--data", str(dest / "dual"), "--split", "test", "--cpu", "--src-lm",
              lms["src_lm"], "--tgt-lm", lms["tgt_lm"], "-o", f"{out}.tsv", "--engine", engine])  # fmt: skip
        table = [line.split("\t") for line in Path(f"{out}.tsv").read_text().splitlines()[1:]]
        outputs.append((out.read_text(), np.array([[float(cell or "nan") for cell in row[:-1]] for row in table])))
    assert outputs[0][0] == outputs[1][0]
    np.testing.assert_allclose(outputs[0][1], outputs[1][1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("engine, limit", [("ctranslate2", None), ("auto", ("0.2", "1"))])
def test_the_step_of_an_evaluation_prints_what_fairseq_generate_does(engine, limit, checkpoint, dest, lms, capsys):
    limited = ["--max-len-a", limit[0], "--max-len-b", limit[1]] if limit else []
    common = [*limited, "-s", TARGET, "-t", SOURCE, "--cpu", "--src-lm", lms["tgt_lm"], "--tgt-lm", lms["src_lm"]]
    run = fairseq_here(
        "generate", dest / "dual", "--user-dir", Path(convert.__file__).parents[1], "--task", "dual_translation",
        "--path", checkpoint, "--dual-inference-alpha", 1, "--nbest", 4, "--beam", 4, *common,
    )  # fmt: skip
    gc.collect()  # its task says how many were cut off when it goes, which has to be before the streams close
    main(["pair.generate", str(dest / "dual"), str(checkpoint), *common, "--split", "test", "--beam", "4",
          "--components", "--engine", engine])  # fmt: skip
    printed = capsys.readouterr().out.splitlines()
    assert read_engine(printed) == f"ctranslate2 {ctranslate2.__version__}, float32"
    cut_off = read_cut_off(printed)
    assert cut_off == read_cut_off(run.output.splitlines()) and bool(cut_off) == bool(limit)
    numbers = sorted(int(line.split("\t")[0][2:]) for line in printed if line.startswith("S-"))
    assert numbers == list(range(SPLITS["test"][0]))

    def translations(lines: list[str]) -> dict[tuple[str, str], np.ndarray]:
        heads = [line.split("\t") for line in lines if line.startswith("H-")]
        components = [read_component_line(line) for line in lines if line.startswith("R-")]
        assert [int(head[0][2:]) for head in heads] == [number for number, _ in components]
        return {
            (head[0], head[2]): np.array([float(head[1]) * math.log(2), *values])
            for head, (_, values) in zip(heads, components, strict=True)
        }

    found, expected = translations(printed), translations(grouped(run.output.splitlines()))
    same = found.keys() & expected.keys()
    assert len(same) > 0.9 * len(expected)
    for key in same:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-3)


def grouped(lines: list[str]) -> list[str]:
    """R- lines of a batch stand before its H- lines: both in the order of their sentences."""
    chosen = [line for line in lines if line.startswith(("R-", "H-"))]
    return sorted(chosen, key=lambda line: (line[0], int(line.split("\t")[0][2:])))
