"""Numbers that stay numbers: huge gaps in any precision, a NaN that is named, several processes, the same seed."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import options as fairseq_options
from fairseq import tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from helpers import PLUGIN, ROOT, SOURCE, TARGET, TINY, free_port, parameter_difference, train

from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.nan import _NanDetector

FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"


# --- the criterion, in any precision


@pytest.fixture(scope="module")
def build(corpus, lm_options):
    """Make a criterion, a model and a batch of eight pairs as fairseq-train does."""

    @functools.cache
    def make(*arguments: object):
        argv = [
            corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
            *TINY["transformer"], "--criterion", "dual_cross_entropy", "--cpu", "--max-tokens", 300, "--dropout", 0,
            *lm_options, *arguments,
        ]  # fmt: skip
        args = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), [str(a) for a in argv])
        cfg = convert_namespace_to_omegaconf(args)
        utils.set_torch_seed(1)
        task = tasks.setup_task(cfg.task)
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        model.set_num_updates(0)
        task.load_dataset("train")
        dataset = task.dataset("train")
        return criterion, model.train(), dataset.collater([dataset[i] for i in range(8)])

    def build(*arguments: object, dtype: torch.dtype = torch.float32):
        criterion, model, sample = make(*arguments)
        return criterion, copy.deepcopy(model).to(dtype), sample

    return build


def with_gaps(sample, size: float):
    """The batch with language model scores that make gaps of about this size, of either sign."""
    signs = torch.tensor([1.0, -1.0]).repeat(len(sample["id"]) // 2).double()
    return {**sample, "log_p_source": signs * size / 2, "log_p_target": -signs * size / 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("size", [10, 300, 10_000])
@pytest.mark.parametrize(("lam", "clip"), [(0.01, 0), (1, 0), (1, 50)], ids=["weak", "strong", "clipped"])
def test_huge_gaps_give_no_nan_and_no_infinity(build, dtype, size, lam, clip):
    criterion, model, sample = build(
        "--dual-lambda", lam, "--dual-gap-clip", clip, "--label-smoothing", 0.1, dtype=dtype
    )
    loss, sample_size, log = criterion(model, with_gaps(sample, size))
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert log["gap_abs_sum"] / log["gap_count"] == pytest.approx(size, rel=0.1, abs=30)
    for name, value in log.items():
        assert torch.isfinite(torch.as_tensor(value, dtype=torch.float32)), name
    with metrics.aggregate() as agg:
        criterion.reduce_metrics([log])
    assert all(math.isfinite(value) for value in agg.get_smoothed_values().values())

    # fairseq scales an fp16 loss, and lowers the scale (to 1e-4 at the least) until nothing overflows any more
    scale = 1.0 if dtype != torch.float16 else 2.0**-7
    (loss * scale / sample_size).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() < 65_504


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_sees_the_gap_that_float32_sees(build, dtype):
    gaps = []
    for precision in (torch.float32, dtype):
        criterion, model, sample = build("--dual-lambda", 0.01, dtype=precision)
        _, _, log = criterion(model, with_gaps(sample, 10_000))
        gaps.append((log["gap_sum"] / log["gap_count"]).item())
    assert gaps[1] == pytest.approx(gaps[0], abs=1.0)  # nats, of 10,000: in half precision they are 8 or 64 apart


@pytest.mark.parametrize("gpu", [True, False])
def test_bf16_is_for_the_gpu_where_there_is_one(corpus, monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    argv = [corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", *TINY["transformer"], "--bf16"]
    argv += ["--distributed-world-size", 1]
    cfg = convert_namespace_to_omegaconf(
        fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), [str(a) for a in argv])
    )
    assert cfg.common.tpu  # what fairseq makes of --bf16
    seen = []
    with contextlib.nullcontext() if gpu else pytest.raises(UserError, match="--bf16: needs a GPU"):
        distributed_utils.call_main(cfg, lambda cfg: seen.extend([cfg.common.tpu, cfg.distributed_training.tpu]))
    assert seen == ([False, False] if gpu else [])


# --- a NaN is named


def bad_sample(sample, *rows: int):
    scores = torch.zeros(len(sample["id"]), dtype=torch.float64)
    scores[list(rows)] = float("nan")
    return {**sample, "log_p_source": scores, "log_p_target": torch.zeros_like(scores)}


def reports(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def test_validation_names_the_sentences_of_a_nan(build, caplog):
    criterion, model, sample = build("--dual-lambda", 0.1)
    sample = bad_sample(sample, 1, 4)
    with torch.no_grad(), caplog.at_level(logging.ERROR):
        criterion(model.eval(), sample)
    ids = ", ".join(str(i) for i in sample["id"][[1, 4]].tolist())
    assert reports(caplog) == [
        f"update 0: {part}: NaN or infinite in 2 sentence pair(s) of the validation data, ids (from 0): {ids}"
        for part in ("duality gap", "loss")
    ]


def test_training_looks_for_a_nan_only_when_fairseq_does(build, caplog):
    criterion, model, sample = build("--dual-lambda", 0.1)
    with caplog.at_level(logging.ERROR):
        criterion(model, bad_sample(sample, 2))
        assert reports(caplog) == []
        with _NanDetector(model):
            criterion(model, bad_sample(sample, 2))[0].backward()
    (number,) = sample["id"][[2]].tolist()
    assert reports(caplog) == [
        f"update 1: {part}: NaN or infinite in 1 sentence pair(s) of the train data, ids (from 0): {number}"
        for part in ("duality gap", "loss")
    ]

    caplog.clear()
    with caplog.at_level(logging.ERROR), _NanDetector(model):
        criterion(model, with_gaps(sample, 1))
    (report,) = reports(caplog)
    assert report.startswith("update 1: losses finite, but not a gradient, in 8 sentence pair(s) of the train data")


@pytest.mark.slow
def test_a_run_that_meets_a_nan_names_its_sentence_and_stops(corpus, lm_options, tmp_path):
    options = ("--lr", 0.1, "--optimizer", "sgd", "--lm-score-cache", tmp_path / "cache", "--dual-lambda", 0.05)
    train(corpus / "dual", tmp_path / "good", *lm_options, *options, "--max-update", 1)
    (path,) = (tmp_path / "cache").glob(f"train.{SOURCE}.*.npy")
    scores = np.load(path)
    scores[30] = -3e38  # its square is infinite
    np.save(path, scores)
    run = train(corpus / "dual", tmp_path / "bad", *lm_options, *options, check=False, here=False)
    assert run.returncode == 1 and "FloatingPointError: gradients are Nan/Inf" in run.output
    assert "loss: NaN or infinite in 1 sentence pair(s) of the train data, ids (from 0): 30" in run.output
    assert not (tmp_path / "bad" / "checkpoint_last.pt").exists(), "it went on with NaN in its parameters"


# --- the same seed


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(corpus, lm_options, tmp_path):
    options = (*lm_options, "--optimizer", "adam", "--lr", 0.01, "--dual-lambda", 0.05, "--max-update", 8)
    for name in ("one", "again"):
        run = train(corpus / "dual", tmp_path / name, *options, "--seed", 3, "--dropout", 0.2)
        assert len(run.logged("train_inner")) == 8
    assert parameter_difference(tmp_path / "one", tmp_path / "again") == 0


# --- several processes

# fairseq-train that prints the loss of every update, in nats a token, to the last digit.
EXACT = """
import os, sys
import torch
import dual_fairseq.plugin.criterion as criterion
reduce_metrics = criterion.DualCrossEntropyCriterion.reduce_metrics
def exact(logs):
    if torch.is_grad_enabled() and os.environ.get("RANK", "0") == "0":
        total = {key: float(sum(log[key] for log in logs)) for key in ("loss", "ntokens")}
        print("EXACT", int(total["ntokens"]), repr(total["loss"] / total["ntokens"]), flush=True)
    reduce_metrics(logs)
criterion.DualCrossEntropyCriterion.reduce_metrics = staticmethod(exact)
from fairseq_cli.train import cli_main
cli_main()
"""


def exact_losses(corpus: Path, folder: Path, processes: int, *arguments: object) -> list[tuple[int, float]]:
    """(target tokens, loss in nats a token) of every update; one process makes the batches of four in turn."""
    program = folder / "exact.py"
    program.write_text(EXACT)
    command = [sys.executable, program]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        command += ["--master_port", free_port(), program]
    command += [
        corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        *TINY["transformer"], "--criterion", "dual_cross_entropy", "--save-dir", folder / f"of_{processes}", "--cpu",
        "--max-tokens", 70, "--no-epoch-checkpoints", "--disable-validation", "--dropout", 0, "--optimizer", "sgd",
        "--lr", 0.1, "--max-update", 50, "--distributed-backend", "gloo", *arguments,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    # several processes print into one another's lines
    return [(int(n), float(loss)) for n, loss in re.findall(r"EXACT (\d+) (\S+?)(?=\s|EXACT|$)", done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_lose_what_one_loses_over_the_same_global_batches(corpus, lm_options, tmp_path, processes):
    """For 50 updates within 1e-5, over epochs whose last update leaves processes without a batch.

    GELU has no kink: where a ReLU's input is 0 to rounding, the order of a sum decides whether a token has a gradient.
    """
    options = (*lm_options, "--dual-lambda", 0.05, "--lm-score-cache", tmp_path / "cache", "--activation-fn", "gelu")
    one = exact_losses(corpus, tmp_path, 1, *options, "--update-freq", processes)
    many = exact_losses(corpus, tmp_path, processes, *options)
    assert len(one) == len(many) == 50
    assert [tokens for tokens, _ in one] == [tokens for tokens, _ in many], "not the same global batches"
    smallest, largest = (choose(tokens for tokens, _ in one) for choose in (min, max))
    assert smallest < largest * (processes - 1) / processes, "no process ever had an empty batch"
    difference = max(abs(a - b) for (_, a), (_, b) in zip(one, many, strict=True))
    print(f"{processes} processes: largest difference of the loss in 50 updates {difference:.1e} nats a token")
    assert difference < 1e-5
    assert parameter_difference(tmp_path / "of_1", tmp_path / f"of_{processes}") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_when_one_process_is_killed_or_hangs_the_others_end_with_an_error(corpus, tmp_path, blow):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", free_port(),
        "-m", "fairseq_cli.train", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE,
        "-t", TARGET, *TINY["transformer"], "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--save-dir",
        tmp_path, "--cpu", "--distributed-backend", "gloo", "--max-tokens", 300, "--optimizer", "sgd", "--lr", 0.1,
        "--disable-validation", "--no-save", "--log-format", "json", "--log-interval", 1, "--max-update", 100_000,
        "--heartbeat-timeout", 10,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [str(word) for word in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    workers: list[int] = []
    for line in process.stdout:
        if '"num_updates": "5"' in line:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            workers = [
                int(pid) for pid in children if b"fairseq_cli.train" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            os.kill(workers[-1], blow)
            break
    assert len(workers) == 2
    begun = time.monotonic()
    process.stdout.read()
    assert process.wait(timeout=120) != 0
    print(f"the launcher ended {time.monotonic() - begun:.1f} s after {blow.name}")
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            raise AssertionError(f"process {pid} is still there")
