"""What fairseq's commands have to say to their user is one line."""

from __future__ import annotations

from argparse import Namespace

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

import dual_fairseq
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.commands import guarded, one_line

dual_fairseq.register()


def raised_in(module: str, error: Exception) -> None:
    """Raise an error as if a module had done so."""
    exec("def fail(error):\n    raise error", names := {"__name__": module})
    names["fail"](error)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        ("fairseq_cli.generate", AssertionError("--sampling requires --nbest"), "--sampling requires --nbest"),
        ("fairseq.distributed.utils", ValueError("world size is 2 but have 0"), "world size is 2 but have 0"),
        ("fairseq.scoring.wer", ImportError("Please install editdistance"), "Please install editdistance"),
        ("fairseq.tasks.translation", FileNotFoundError("Dataset not found: x (y)"), r"Dataset not found: x \(y\)"),
        ("logging", FileNotFoundError(2, "No such file", "/x/log"), "--log-file /x/log: No such file"),
        ("os", FileExistsError(17, "File exists", "/y"), "--path or --results-path /y: File exists"),
        ("anything", PermissionError(13, "Permission denied", "/z"), "/z: Permission denied"),
    ],
)
def test_what_the_user_can_fix_is_one_line(module, error, message):
    given = Namespace(log_file="/x/log", path="/y", results_path="/y", other=None)
    for form in (given, OmegaConf.create({"common": vars(given), "task": None})):
        with pytest.raises(UserError, match=f"^{message}$"), one_line(form):
            raised_in(module, error)


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("fairseq.trainer", AssertionError("a fault")),
        ("fairseq_cli.train", AssertionError()),
        ("dual_fairseq.plugin.task", ValueError("a fault")),
        ("socket", ConnectionResetError(104, "Connection reset by peer")),
        ("dual_fairseq.plugin.task", ImportError("a fault")),
    ],
)
def test_a_fault_of_the_code_stays_a_traceback(module, error):
    with pytest.raises(type(error)), one_line(Namespace()):
        raised_in(module, error)


def test_an_option_that_is_missing_is_named():
    with pytest.raises(UserError, match="--sentencepiece-model: is missing"), one_line(Namespace()):
        OmegaConf.create({"sentencepiece_model": "???"}).sentencepiece_model  # noqa: B018


def arguments(*words: str) -> Namespace:
    return options.parse_args_and_arch(options.get_training_parser(), ["data", "--arch", "lstm", *words])


def test_a_value_that_a_configuration_cannot_have_is_named():
    args = arguments("--lr-scheduler", "polynomial_decay")
    args.total_num_update = None
    with pytest.raises(UserError, match="--total-num-update null: this value is not possible; give another value"):
        convert_namespace_to_omegaconf(args)


def test_a_list_that_is_none_is_refused_by_its_option(capsys):
    with pytest.raises(SystemExit):
        arguments("--lr-scheduler", "tri_stage", "--phase-ratio", "(1,2")
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith("invalid <lambda> value: '(1,2'")


def test_fairseq_generate_takes_its_part_of_the_sentences_as_its_help_says(monkeypatch):
    args = Namespace(num_shards=3, shard_id=2, distributed_world_size=1, distributed_rank=0)
    guarded(lambda args: None)(args)
    assert (args.distributed_world_size, args.distributed_rank) == (3, 2)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match=r"under torchrun .* --num-shards N"):
        guarded(lambda args: None)(args)


def test_fairseq_generate_without_a_sentence():
    def main(args):
        raised_in("fairseq_cli.generate", ZeroDivisionError("division by zero"))

    with pytest.raises(UserError, match="no sentence is left to translate"):
        guarded(main)(Namespace(num_shards=1))
