"""TensorBoard and Weights & Biases get both directions' curves under clear names, in training and in validation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from fairseq.logging import progress_bar
from helpers import SOURCE, TARGET, train

DIRECTIONS = (f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}")
NAMES = {"loss", "nll_loss", "ppl", "gap_abs", "gap_sq", "gap_mean", "neg_weight", "dual_lambda"}
NAMES |= {f"nll_loss_{direction}" for direction in DIRECTIONS}
BLEU_NAMES = {"bleu", *(f"bleu_{direction}" for direction in DIRECTIONS)}


@pytest.fixture(scope="module")
def tracked(corpus, lm_options, tmp_path_factory):
    """One training with both: its output, the folder of TensorBoard, what wandb was given."""
    folder = tmp_path_factory.mktemp("tracked")
    notes: list[list[Any]] = []
    wandb = SimpleNamespace(  # the real one needs an account
        config=SimpleNamespace(update=lambda values, **_: None),
        init=lambda project=None, **_: notes.append(["init", project]),
        log=lambda values, step=None: notes.append(["log", dict(values), step]),
    )
    with mock.patch.object(progress_bar, "wandb", wandb):
        run = train(
            corpus / "dual", folder / "pair", *lm_options, "--dual-lambda", 0.02, "--optimizer", "adam", "--lr", 0.01,
            "--max-epoch", 2, "--eval-bleu", "--tensorboard-logdir", folder / "tensorboard", "--wandb-project", "pairs",
        )  # fmt: skip
    return run, folder / "tensorboard", notes


def test_wandb_gets_every_curve(tracked):
    run, _, notes = tracked
    assert ["init", "pairs"] in notes
    logged = {key for kind, *rest in notes if kind == "log" for key in rest[0]}
    for split in ("train", "train_inner", "valid"):
        names = NAMES | (BLEU_NAMES if split == "valid" else set())
        assert {f"{split}/{name}" for name in names} <= logged
    assert not [key for key in logged if key.partition("/")[2].startswith("_")]  # no counts of n-grams
    for record in run.logged("valid"):
        for name in NAMES | BLEU_NAMES:
            values = [r[0][f"valid/{name}"] for kind, *r in notes
                      if kind == "log" and f"valid/{name}" in r[0] and r[1] == record["valid_num_updates"]]  # fmt: skip
            assert values == [pytest.approx(record[f"valid_{name}"], rel=1e-3, abs=1e-3)]


def test_tensorboard_gets_every_curve(tracked):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed: nothing to read"
    )
    run, folder, _ = tracked

    def curves(split: str) -> dict[str, list]:
        accumulator = reading.EventAccumulator(str(Path(folder) / split)).Reload()
        return {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}

    assert curves("train").keys() >= NAMES and curves("train_inner").keys() >= NAMES
    valid = curves("valid")
    assert valid.keys() >= NAMES | BLEU_NAMES
    assert not [tag for tag in valid if tag.startswith("_")]
    for name in NAMES | BLEU_NAMES:
        expected = [(r["valid_num_updates"], r[f"valid_{name}"]) for r in run.logged("valid")]
        found = [(event.step, event.value) for event in valid[name]]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [v for _, v in found] == pytest.approx([v for _, v in expected], rel=1e-3, abs=1e-3)
