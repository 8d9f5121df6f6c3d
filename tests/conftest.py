"""Fixtures of all tests: the invented language pair binarized, its language models, a trained pair."""

from __future__ import annotations

import copy
import signal
from functools import cache
from pathlib import Path

import pytest
from helpers import (
    LSTM_LM,
    SOURCE,
    SPLITS,
    TARGET,
    TRANSFORMER_LM,
    Run,
    binarize,
    sentence_pairs,
    train,
    train_language_model,
    write_pairs,
)
from hydra.core.override_parser.overrides_parser import OverridesParser

# Half of a fairseq command's time before it works is hydra's reading of its 300 options, mostly the same ones.
_parse_rule = cache(OverridesParser.create().parse_rule)
OverridesParser.parse_rule = lambda self, text, rule: copy.copy(_parse_rule(text, rule))

# Started in the background, or by nohup, a process ignores these, and so would all that the tests start and stop.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(_signal, _handler)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Binarized data: ``dual/`` and ``lm/<language>/``, as ``scripts/preprocess.sh`` lays them out."""
    directory = tmp_path_factory.mktemp("corpus")
    for split, (count, seed) in SPLITS.items():
        write_pairs(directory / "text", split, sentence_pairs(count, seed))
    text, dual = directory / "text", directory / "dual"
    prefixes = [f"--{split}pref={text / split}" for split in ("train", "valid", "test")]
    binarize("-s", SOURCE, "-t", TARGET, *prefixes, "--destdir", dual)
    for language in (SOURCE, TARGET):
        monolingual = [f"{prefix}.{language}" for prefix in prefixes]
        binarize(
            "--only-source", "--srcdict", dual / f"dict.{language}.txt", *monolingual,
            "--destdir", directory / "lm" / language,
        )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def language_models(corpus, tmp_path_factory) -> dict[str, Path]:
    """A trained language model of each language."""
    directory = tmp_path_factory.mktemp("lm")
    return {
        SOURCE: train_language_model(corpus / "lm" / SOURCE, directory / SOURCE, *LSTM_LM),
        TARGET: train_language_model(corpus / "lm" / TARGET, directory / TARGET, *TRANSFORMER_LM),
    }


@pytest.fixture(scope="session")
def lm_options(language_models) -> tuple[object, ...]:
    return ("--src-lm", language_models[SOURCE], "--tgt-lm", language_models[TARGET])


@pytest.fixture(scope="session")
def trained_pair(corpus, lm_options, tmp_path_factory) -> tuple[Path, Run]:
    """A pair trained, in a process of its own, with dual supervision and validation BLEU: its directory and its run."""
    directory = tmp_path_factory.mktemp("pair")
    run = train(
        corpus / "dual", directory, *lm_options, "--dual-lambda", 0.02, "--dual-lambda-reverse", 0.01,
        "--optimizer", "adam", "--lr", 0.01, "--label-smoothing", 0.1, "--max-epoch", 2, "--eval-bleu",
        "--eval-bleu-detok", "moses", "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric",
        here=False,
    )  # fmt: skip
    return directory, run
