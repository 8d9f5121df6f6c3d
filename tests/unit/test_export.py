"""Single models out of a pair and into one, averaged checkpoints and ensembles, against the fairseq that users have."""

from __future__ import annotations

import os

import pytest
import torch

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair import average
from dual_fairseq.plugin import finished


def test_a_namespace_of_built_in_types_survives_a_file(tmp_path):
    torch.save(finished.plain_namespace({"arch": "lstm", "data": None, "betas": [0.9, 0.98]}), tmp_path / "options")
    options = torch.load(tmp_path / "options", weights_only=True)
    options.data = "elsewhere"
    assert options and vars(options) == {"arch": "lstm", "data": "elsewhere", "betas": [0.9, 0.98]}
    with pytest.raises(UserError, match="--some-option: a function cannot be written"):
        finished.plain(lambda: None, "some_option")


def test_the_newest_checkpoints_are_taken(tmp_path):
    names = ["checkpoint1.pt", "checkpoint2.pt", "checkpoint10.pt", "checkpoint_1_50.pt", "checkpoint_2_100.pt"]
    for name in [*names, "checkpoint_best.pt", "checkpoint_last.pt", "checkpoint3.pt.tmp", "xcheckpoint11.pt"]:
        (tmp_path / name).touch()

    def taken(*args) -> list[str]:
        return [os.path.relpath(path, tmp_path) for path in average.newest(str(tmp_path), *args)]

    assert taken(2, False) == ["checkpoint10.pt", "checkpoint2.pt"]
    assert taken(2, False, 9) == ["checkpoint2.pt", "checkpoint1.pt"]
    assert taken(1, True) == ["checkpoint_2_100.pt"]
    assert taken(1, True, 99) == ["checkpoint_1_50.pt"]
    with pytest.raises(UserError, match=r"has 2 checkpoints checkpoint_EPOCH_UPDATE.pt, not 3"):
        taken(3, True)
    with pytest.raises(UserError, match="no such folder"):
        average.newest(str(tmp_path / "gone"), 1, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--num-epoch-checkpoints", "2", "--num-update-checkpoints", "2"),
        ("--num-epoch-checkpoints", "2", "--inputs", "a", "b"),
        ("--num-epoch-checkpoints", "0"),
        ("--checkpoint-upper-bound", "2"),
    ],
    ids=["both", "two-folders", "none", "bound-alone"],
)
def test_averaging_options_that_do_not_go_together(arguments, tmp_path):
    with pytest.raises(SystemExit) as refusal:
        main(["average", "--inputs", str(tmp_path), "--output", str(tmp_path / "out.pt"), *arguments])
    assert refusal.value.code not in (0, None)
    assert list(tmp_path.iterdir()) == []
