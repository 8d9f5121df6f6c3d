"""A checkpoint whose weights fit but mean something else is refused at every door, in one line."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from fairseq_cli import generate, interactive, train, validate
from helpers import PLUGIN, SOURCE, TARGET, TINY
from helpers import train as train_pair

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat import save_dir
from dual_fairseq.pair.load import load_pair


@pytest.fixture
def run(monkeypatch, corpus, tmp_path):
    """A fairseq command's own entry point in this process; returns its refusal, or None."""

    def call(module, data, *options: object, languages=(SOURCE, TARGET)) -> str | None:
        argv = [module.__name__, data, "--user-dir", PLUGIN, "--task", "dual_translation", "--cpu"]
        argv += ["--num-workers", 0]
        argv += ["-s", languages[0], "-t", languages[1], *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        try:
            module.cli_main()
        except UserError as error:
            assert "\n" not in str(error)
            return str(error)
        return None

    return call


@pytest.fixture
def go_on(run, corpus):
    """fairseq-train of a pair for one more update."""

    def call(save: Path, *options: object, data: Path = corpus / "dual", languages=(SOURCE, TARGET), model=()):
        return run(
            train, data, *TINY["transformer"], *model, "--criterion", "dual_cross_entropy", "--dual-lambda", 0,
            "--optimizer", "adam", "--lr", 0.01, "--max-tokens", 300, "--no-epoch-checkpoints", "--save-dir", save,
            "--disable-validation", *options, languages=languages,
        )  # fmt: skip

    return call


@pytest.fixture(scope="module")
def one_update(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    options = ("--dual-lambda", 0, "--optimizer", "adam", "--lr", 0.01, "--max-update", 1, "--disable-validation")
    train_pair(corpus / "dual", folder, *options)
    return folder


@pytest.fixture
def pair(one_update, tmp_path) -> Path:
    """The folder of a run of one update."""
    return Path(shutil.copytree(one_update, tmp_path / "run"))


@pytest.fixture
def permuted(corpus, tmp_path) -> Path:
    """The data with another dictionary of the same size."""
    data = shutil.copytree(corpus / "dual", tmp_path / "permuted")
    lines = (data / f"dict.{TARGET}.txt").read_text().splitlines()
    (data / f"dict.{TARGET}.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    return data


def doors(pair: Path, tmp_path: Path):
    """The options by which a run takes over a checkpoint."""
    last = pair / "checkpoint_last.pt"
    new = tmp_path / "new"
    yield pair, ("--max-update", 2)
    yield new, ("--restore-file", last, "--max-update", 2)
    yield new, ("--restore-file", last, "--reset-optimizer", "--reset-dataloader", "--max-update", 2)
    yield new, ("--finetune-from-model", last, "--max-update", 1)
    yield new, ("--init-src2tgt", last, "--max-update", 1)
    yield new, ("--init-tgt2src", last, "--max-update", 1)


def change(path: Path, destination: Path, edit) -> Path:
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, destination)
    return destination


# --- dictionaries


def test_another_dictionary_of_the_same_size(go_on, run, pair, permuted, corpus, tmp_path):
    before = (pair / "checkpoint_last.pt").read_bytes()
    for save, options in doors(pair, tmp_path):
        refused = go_on(save, *options, data=permuted)
        assert refused and f"was trained with another dictionary of {TARGET} than the data's" in refused
        assert str(pair / "checkpoint_last.pt") in refused and f"dict.{TARGET}.txt" in refused
    assert (pair / "checkpoint_last.pt").read_bytes() == before, "it was written over all the same"

    last = pair / "checkpoint_last.pt"
    for module, options in (
        (generate, ("--gen-subset", "valid")),
        (interactive, ("--input", corpus / "text" / f"valid.{SOURCE}")),
        (validate, ("--valid-subset", "valid")),
    ):
        refused = run(module, permuted, "--path", last, "--max-tokens", 300, *options)
        assert refused and f"another dictionary of {TARGET}" in refused
    with pytest.raises(UserError, match=f"another dictionary of {TARGET}"):
        load_pair(last, permuted)


def test_the_digest_is_kept(pair, permuted, corpus, tmp_path):
    """What average, export and import write still knows its dictionaries, when their files are gone."""
    last, data = pair / "checkpoint_last.pt", corpus / "dual"
    known = torch.load(last, weights_only=True)["task_state"]["dictionaries"]
    assert known.keys() == {SOURCE, TARGET} and all(len(digest) == 64 for digest in known.values())
    main(["average", "--inputs", str(last), str(last), "-o", str(tmp_path / "average.pt")])
    plain = {}
    for direction in (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"):
        plain[direction] = tmp_path / direction / "plain.pt"
        main(["export", str(last), "--direction", direction, "-o", str(plain[direction]), "--data", str(data)])
    files = list(zip(("--src2tgt", "--tgt2src"), map(str, plain.values()), strict=True))
    main(["import", *files[0], *files[1], "--data", str(data), "-o", str(tmp_path / "imported.pt")])
    for path in (tmp_path / "average.pt", *plain.values(), tmp_path / "imported.pt"):
        assert torch.load(path, weights_only=True)["task_state"]["dictionaries"] == known
    for path in plain.values():
        for file in path.parent.glob("dict.*"):
            file.unlink()
    with pytest.raises(UserError, match=f"--src2tgt .* another dictionary of {TARGET}"):
        main(["import", *files[0], *files[1], "--data", str(permuted), "-o", str(tmp_path / "imported.pt")])
    with pytest.raises(UserError, match=f"another dictionary of {TARGET}"):
        main(["export", str(last), "--direction", f"{SOURCE}-{TARGET}", "-o", str(tmp_path / "x.pt"), "--data",
              str(permuted)])  # fmt: skip
    assert not (tmp_path / "x.pt").exists()


def test_a_checkpoint_without_digests_is_taken_with_a_warning(go_on, pair, tmp_path, caplog):
    old = change(
        pair / "checkpoint_last.pt", tmp_path / "old.pt", lambda state: state["task_state"].pop("dictionaries")
    )
    with caplog.at_level(logging.WARNING):
        assert go_on(tmp_path / "new", "--restore-file", old, "--max-update", 2) is None
    said = [r.getMessage() for r in caplog.records if "which dictionaries" in r.getMessage()]
    assert len(said) == 1 and str(old) in said[0]


def test_a_checkpoint_to_go_on_from_is_found_as_fairseq_finds_it(go_on, pair, tmp_path, monkeypatch):
    """In the current directory, not in --save-dir; nothing is taken from other checkpoints then."""
    shutil.copy(pair / "checkpoint_last.pt", tmp_path / "start.pt")
    monkeypatch.chdir(tmp_path)
    initial = ("--init-src2tgt", "gone.pt", "--max-update", 2)
    assert go_on(tmp_path / "new", "--restore-file", "start.pt", *initial) is None
    assert "gone.pt: there is no such file" in go_on(tmp_path / "other", *initial)


# --- languages


def test_languages_in_the_other_order(go_on, pair, tmp_path):
    other, last = (TARGET, SOURCE), pair / "checkpoint_last.pt"
    for save, options in ((pair, ()), (tmp_path / "new", ("--restore-file", last))):
        refused = go_on(save, *options, "--max-update", 2, languages=other)
        assert refused and f"was trained with -s {SOURCE} -t {TARGET}" in refused and "--reset-optimizer" in refused
    assert go_on(tmp_path / "new", "--finetune-from-model", last, "--max-update", 1, languages=other) is None
    reset = ("--restore-file", last, "--reset-optimizer", "--reset-dataloader", "--reset-lr-scheduler")
    assert go_on(tmp_path / "reset", *reset, "--max-update", 1, languages=other) is None


# --- a folder in use


def test_two_runs_in_one_folder(go_on, pair):
    before = (pair / "checkpoint_last.pt").read_bytes()
    try:
        save_dir.verify_checkpoint_directory(str(pair))  # as another run does
        refused = go_on(pair, "--max-update", 2)
    finally:
        save_dir._unlock()
    assert refused and f"--save-dir {pair}: another run writes its checkpoints there" in refused
    assert (pair / "checkpoint_last.pt").read_bytes() == before
    assert go_on(pair, "--max-update", 2) is None, "a run that has ended keeps its folder"


# --- options without weights


@pytest.mark.parametrize("option", [("--encoder-attention-heads", 4), ("--activation-fn", "gelu")])
def test_options_without_weights(go_on, pair, tmp_path, option):
    before = (pair / "checkpoint_last.pt").read_bytes()
    for save, options in doors(pair, tmp_path):
        refused = go_on(save, *options, model=option)
        assert refused and f"was trained with {option[0]} " in refused and f", not {option[1]}" in refused
        assert str(pair / "checkpoint_last.pt") in refused
    assert (pair / "checkpoint_last.pt").read_bytes() == before


def test_options_of_training_may_change(go_on, pair):
    more = ("--dropout", 0.3, "--attention-dropout", 0.1, "--max-source-positions", 200, "--checkpoint-activations")
    assert go_on(pair, "--max-update", 2, *more) is None


# --- the state of the training


def in_state(*path, value):
    """An edit of a checkpoint that sets one of its values."""

    def edit(state) -> None:
        for step in path[:-1]:
            state = state[step]
        state[path[-1]] = value

    return edit


OPTIMIZER, EXTRA, HISTORY = "last_optimizer_state", "extra_state", ("optimizer_history", 0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (in_state(OPTIMIZER, "param_groups", value="text"), "last_optimizer_state.param_groups is not like this run's"),
        (in_state(OPTIMIZER, "state", 0, "exp_avg", value="text"), r"state\[0\] is not like its parameter"),
        (in_state(OPTIMIZER, value={}), "last_optimizer_state has no state"),
        (in_state(*HISTORY, "lr_scheduler_state", value={"lr": "text"}), "lr_scheduler_state.lr is not like"),
        (in_state(*HISTORY, "optimizer_name", value="text"), "another --optimizer or --criterion"),
        (in_state(*HISTORY, "num_updates", value=-1), r"num_updates is not a whole number from 0"),
        (in_state(EXTRA, "train_iterator", value="text"), "extra_state.train_iterator is not a record"),
        (in_state(EXTRA, "train_iterator", "epoch", value=-7), "train_iterator.epoch is not a whole number from 0"),
        (in_state(EXTRA, "train_iterator", "version", value="text"), "train_iterator.version is not a whole number"),
        (in_state(EXTRA, "train_iterator", "iterations_in_epoch", value=10**6), "its position in the epoch is after "
        "the last batch"),
        (in_state(EXTRA, "metrics", "default", value="text"), "metrics.default is not a list of this run's meters"),
        (in_state(EXTRA, "dual_fairseq_patience", value="text"), "dual_fairseq_patience is not a record"),
        (in_state(EXTRA, "ema", value="text"), "extra_state.ema is not a record"),
    ],
)  # fmt: skip
def test_a_damaged_state_of_training(go_on, pair, edit, message):
    last = change(pair / "checkpoint_last.pt", pair / "checkpoint_last.pt", edit)
    before = last.read_bytes()
    refused = go_on(pair, "--max-update", 2)
    assert refused and re.search(message, refused) and str(last) in refused
    assert last.read_bytes() == before and os.listdir(pair) == [last.name]


def test_another_scheduler(go_on, pair):
    """Its state is another's and is left alone."""
    assert go_on(pair, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 2, "--max-update", 2) is None


def test_an_average_of_weights_that_begins_late(go_on, pair):
    assert go_on(pair, "--max-update", 2, "--store-ema", "--ema-decay", 0.5) is None
    state = torch.load(pair / "checkpoint_last.pt", weights_only=True)
    assert state["extra_state"]["ema"].keys() == state["model"].keys()
