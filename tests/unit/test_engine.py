"""Which engine runs a pair, and what is said where it cannot be the one that was asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig
from torch import nn

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.options import add_engine, engine_words
from dual_fairseq.pair import convert
from dual_fairseq.pair.engine import CTranslate2, choose_engine
from dual_fairseq.plugin.task import DualTranslationTask

PAIR, FILE = nn.ModuleDict({"models": nn.ModuleDict({"a-b": nn.Linear(1, 1)})}), Path("pair.pt")
PAIR.models = PAIR["models"]
TASK = DualTranslationTask.__new__(DualTranslationTask)
TASK.labels, TASK.tags = [], []
TASK.sides, TASK.directions = {"a-b": SimpleNamespace()}, ("a-b", "b-a")


def choose(name: str, pairs: int = 1, **options: object) -> CTranslate2 | None:
    return choose_engine(name, [PAIR] * pairs, TASK, [FILE] * pairs, **options)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"pairs": 2}, "does not translate with several pairs together"),
        ({"overrides": ["src_lm", "dropout"]}, "takes a model as it was trained, without dropout"),
        ({"overrides": ["src_lm", "dual_inference_alpha"]}, "runs Transformers only"),
        ({}, "runs Transformers only"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name_or_left_to_fairseq(options, reason, caplog):
    with pytest.raises(UserError, match=f"--engine ctranslate2: {reason}; give --engine fairseq$"):
        choose("ctranslate2", **options)
    assert choose("auto", int8=True, **options) is None
    assert caplog.messages == [f"--engine auto: fairseq translates in float32, because CTranslate2 {reason}"]
    assert choose("fairseq", **options) is None


def test_an_engine_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="engine marian: choose one of fairseq, ctranslate2, auto"):
        choose("marian")


def test_where_it_is_not_installed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    parser = argparse.ArgumentParser()
    add_engine(parser)
    for refused in (choose, lambda name: engine_words(parser.parse_args(["--engine", name]))):
        with pytest.raises(UserError, match="--engine ctranslate2: is not installed: pip install ctranslate2; "):
            refused("ctranslate2")
    assert choose("auto") is None
    assert caplog.messages == [
        "--engine auto: fairseq translates, because CTranslate2 is not installed: pip install ctranslate2"
    ]


def test_fairseq_does_not_compute_in_8_bits():
    with pytest.raises(UserError, match="--int8: fairseq does not compute in 8 bits"):
        choose("fairseq", int8=True)
    parser = argparse.ArgumentParser()
    add_engine(parser)
    with pytest.raises(UserError, match="--int8: fairseq does not compute in 8 bits"):
        engine_words(parser.parse_args(["--int8"]))
    assert engine_words(parser.parse_args([])) == []
    assert engine_words(parser.parse_args(["--engine", "auto", "--int8"])) == ["--engine", "auto", "--int8"]


@pytest.mark.parametrize("strict", [True, False])
def test_options_of_generation_that_it_does_not_have(strict, monkeypatch, caplog):
    monkeypatch.setattr("dual_fairseq.pair.engine.converted_pair", lambda pair, task, checkpoint: Path("folder"))
    engine = CTranslate2(PAIR, TASK, FILE, strict=strict)
    options = GenerationConfig(beam=4, lenpen=0.5, max_len_a=2, sampling=True, min_len=3)
    if strict:
        with pytest.raises(UserError, match="CTranslate2 does not translate with min_len, sampling; give"):
            engine.generator(TASK, generator := object(), options)
    else:
        assert engine.generator(TASK, generator := object(), options) is generator
        assert "fairseq translates, because CTranslate2 does not translate with min_len, sampling" in caplog.text
    options = GenerationConfig(beam=4, lenpen=0.5, max_len_a=2, unnormalized=True)
    assert engine.generator(TASK, generator := SimpleNamespace(eos=2), options) is not generator
    for labels, tags in (([4, 5], []), ([], [4, 5])):  # fairseq scores all labels, and gives tags their length
        task = DualTranslationTask.__new__(DualTranslationTask)
        task.labels, task.tags = labels, tags
        assert engine.generator(task, generator, options) is generator


def test_a_converted_model_is_compared_with_its_original():
    found = [SimpleNamespace(log_probs=[-9.0, -1.0, -2.0])]
    convert._compare(found, torch.tensor([-12.001]), torch.zeros(()))
    convert._compare(found, torch.tensor([-3.0]), torch.zeros(()), skip=1)
    for other in (-12.1, float("nan")):
        with pytest.raises(convert.CannotConvert, match="computes other log-probabilities"):
            convert._compare(found, torch.tensor([other]), torch.zeros(()))
    convert._compare(found, torch.tensor([-12.1]), torch.zeros((), dtype=torch.half))
