"""What tests share: a tiny invented language pair, and runs of commands on it."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import preprocess
from fairseq_cli import train as fairseq_train

from dual_fairseq.common.errors import UserError
from dual_fairseq.pipeline import forks
from dual_fairseq.plugin.checkpoint import load_state

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "dual_fairseq"
SOURCE, TARGET = "xx", "yy"
SPLITS = {"train": (120, 1), "valid": (24, 2), "test": (16, 3)}  # pairs, seed
# Models so small that start-up is what a run costs.
TINY = {
    "transformer": (
        "--arch transformer --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
        "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2"
    ).split(),
    "lstm": (
        "--arch lstm --encoder-embed-dim 16 --encoder-hidden-size 16 --decoder-embed-dim 16 --decoder-hidden-size 16 "
        "--decoder-out-embed-dim 16"
    ).split(),
}


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    returncode: int
    output: str

    def logged(self, stage: str) -> list[dict[str, float]]:
        """The JSON records that fairseq's ``--log-format json`` printed for ``train_inner``, ``train`` or ``valid``."""
        records = []
        for line in self.output.splitlines():
            if f"| {stage} | {{" in line:
                record = json.loads(line.split(f"| {stage} | ", 1)[1])
                records.append({key: _number(value) for key, value in record.items()})
        return records

    @property
    def error(self) -> str:
        """The last line: where a refusal stands."""
        return self.output.strip().splitlines()[-1]


def _number(value):
    try:
        return float(value)
    except ValueError:
        return value


def fairseq(
    command: str,
    *args: object,
    check: bool = True,
    launcher: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    timeout: int = 300,
) -> Run:
    """Run ``fairseq-<command>`` in a process of its own, as a user would."""
    words = [f"fairseq-{command}", *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    if launcher:
        words = [*launcher, "-m", f"fairseq_cli.{command}", *words[1:]]
    done = run_command(words, env=env, timeout=timeout)
    run = Run(done.returncode, done.stdout + done.stderr)
    assert not check or run.returncode == 0, run.output[-4000:]
    return run


def run_command(
    words: Sequence[object], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: int = 600
) -> subprocess.CompletedProcess[str]:
    """As :func:`subprocess.run` without input; commands of ours and of fairseq are forked, which saves seconds."""
    command, null, pipe = [*map(str, words)], subprocess.DEVNULL, subprocess.PIPE
    if not forks.forkable(command):
        return subprocess.run(
            command, env=env, cwd=cwd, stdin=null, stdout=pipe, stderr=pipe, text=True, timeout=timeout
        )
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = forks.fork(command, [out.fileno(), err.fileno()], env or os.environ, cwd)
        try:
            status = process.wait(timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def fairseq_here(command: str, *args: object, check: bool = True) -> Run:
    """``fairseq-<command>`` in this process, which saves its start; a refusal is its output.

    It has no process that loads data: such a one is waited for, for seconds, when what is left of a run is collected.
    """
    output = io.StringIO()
    argv = [f"fairseq-{command}", *map(str, args), "--num-workers", "0"]
    vars(checkpoint_utils.save_checkpoint).pop("best", None)  # fairseq keeps these for the life of a process
    vars(fairseq_train.should_stop_early).clear()
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(output), _logging_to(output):
        try:
            importlib.import_module(f"fairseq_cli.{command}").cli_main()
        except UserError as error:
            assert not check, error
            return Run(1, str(error.code))
    return Run(0, output.getvalue())


@contextlib.contextmanager
def _logging_to(output: io.StringIO) -> Iterator[None]:
    """As in a process that has just started, whatever commands have quietened in this one."""
    log, loggers = logging.StreamHandler(output), [logging.getLogger(name) for name in ("", "fairseq", "dual_fairseq")]
    log.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    levels = [logger.level for logger in loggers]
    with mock.patch.object(loggers[0], "handlers", [log]), mock.patch.object(loggers[0].manager, "_disable", 0):
        try:
            for logger in loggers:
                logger.setLevel(logging.INFO)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def configuration(*words: object):
    """fairseq's configuration of a command line of ``fairseq-train``; composing one takes longer than most tests."""
    return copy.deepcopy(_configuration(tuple(map(str, words))))


@cache
def _configuration(words: tuple[str, ...]):
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), list(words)))


def short_command(folder: Path) -> list[str]:
    """A command to run in ``folder`` that prints a table, writes the file ``out``, and takes no time."""
    (folder / "text").write_text("a b c\nb c a\nc a b\n")
    (folder / "mono").write_text("a b a b c c\nb a c a\n")
    words = "-m dual_fairseq select --pairs text --valid text --from mono -o out --keep 1"
    return [sys.executable, *words.split()]


def train(data: Path, save_dir: Path, *args: object, model: str = "transformer", here: bool = True, **kwargs) -> Run:
    """``fairseq-train`` of a tiny pair on the CPU, in this process or in one of its own."""
    return (fairseq_here if here else fairseq)(
        "train", data, "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        *TINY.get(model, model.split()), "--criterion", "dual_cross_entropy", "--save-dir", save_dir, "--cpu",
        "--log-format", "json", "--log-interval", 1, "--max-tokens", 300, "--no-epoch-checkpoints", *args, **kwargs,
    )  # fmt: skip


def train_by_two(data: Path, save_dir: Path, *args: object, check: bool = True) -> list[Run]:
    """``fairseq-train`` of a tiny pair by two processes, as torchrun starts them."""
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}

    def process(rank: str) -> Run:
        env = {**together, "RANK": rank, "LOCAL_RANK": rank}
        return train(data, save_dir, "--distributed-backend", "gloo", *args, here=False, check=check, env=env)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(process, "01"))


def free_port() -> str:
    """A port for processes to meet at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def parameters(directory: Path, name: str = "checkpoint_last.pt") -> dict[str, torch.Tensor]:
    return load_state(str(directory / name), "--path")["model"]


def max_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[key].float() - b[key].float()).abs().max().item() for key in a)


def parameter_difference(directory: Path, other: Path) -> float:
    """The largest difference of any parameter of two runs' last checkpoints."""
    return max_difference(parameters(directory), parameters(other))


def sentence_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Sentences of an invented language and their translations: other words, in the opposite order.

    The two sides are unlike in all that a mix-up could hide behind. Some words have no translation, some are translated
    by two, and a translation may end in particles: so its length does not follow from the source, and the vocabularies
    differ in size and order. Some pairs occur twice, many sentences are of equal length, and in each split one word
    stands once and in no other split.
    """
    rng = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for number in range(count):
        if number % 9 == 8:
            pairs.append(rng.choice(pairs))
            continue
        words = [rng.randrange(20) for _ in range(rng.randint(2, 9))]
        if number == 7:
            words.append(20 + seed)
        translation = [f"t{w}" for w in reversed(words) if not 16 <= w < 20 for _ in range(2 if w % 4 == 1 else 1)]
        translation += rng.choices(("ta", "te", "to"), k=rng.choice((0, 0, 1, 3)))
        pairs.append((" ".join(f"s{w}" for w in words), " ".join(translation or ["ta"])))
    return pairs


def write_pairs(directory: Path, split: str, pairs: list[tuple[str, str]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for index, language in enumerate((SOURCE, TARGET)):
        (directory / f"{split}.{language}").write_text("".join(pair[index] + "\n" for pair in pairs))


def binarize(*args: object) -> None:
    """``fairseq-preprocess`` in this process, which saves its start."""
    preprocess.main(options.get_preprocessing_parser().parse_args([*map(str, args)]))


def preprocessed(corpus: Path, folder: Path, tokenizer: str) -> Path:
    """What scripts/preprocess.sh leaves."""
    shutil.copytree(corpus / "dual", folder / "dual")
    shutil.copytree(corpus / "lm", folder / "lm")
    (folder / "raw").mkdir()
    for split, (count, seed) in SPLITS.items():
        for index, language in enumerate((SOURCE, TARGET)):
            text = "".join(pair[index] + "\n" for pair in sentence_pairs(count, seed))
            (folder / "raw" / f"{split}.{language}").write_text(text)
    write_record(folder, SOURCE, TARGET, tokenizer)
    return folder


def write_record(folder: Path, source: str, target: str, tokenizer: str = "none") -> None:
    """The record of a DEST, as short as it may be."""
    record = {"source": source, "target": target, "tokenizer": tokenizer, "subword": "bpe"}
    (folder / "preprocess.json").write_text(json.dumps(record))


def train_language_model(data: Path, save_dir: Path, *args: object) -> Path:
    fairseq_here(
        "train", data, "--user-dir", PLUGIN, "--task", "language_modeling", "--sample-break-mode", "eos",
        "--save-dir", save_dir, "--cpu", "--max-update", 30, "--optimizer", "adam", "--lr", 0.01, "--max-tokens", 300,
        "--no-epoch-checkpoints", *(args or LSTM_LM),
    )  # fmt: skip
    return save_dir / "checkpoint_best.pt"


LSTM_LM = (
    "--arch lstm_lm --decoder-layers 1 --decoder-embed-dim 16 --decoder-hidden-size 16 --decoder-out-embed-dim 16"
).split()
TRANSFORMER_LM = (
    "--arch transformer_lm --decoder-layers 1 --decoder-embed-dim 16 --decoder-ffn-embed-dim 32 "
    "--decoder-attention-heads 2 --share-decoder-input-output-embed"
).split()


def zero_state(stack, batch_size: int, like) -> tuple:
    """The state of a recurrent stack before anything was read, on the device and in the precision of ``like``."""
    shape = (stack.num_layers * (2 if stack.bidirectional else 1), batch_size, stack.hidden_size)
    return tuple(like.new_zeros(shape) for _ in range(2 if stack.mode == "LSTM" else 1))


def gate_matrices(layer):
    """(parameter's name, matrix of one gate) of each matrix of a recurrent layer."""
    for name, parameter in layer.named_parameters():
        if parameter.dim() == 2:
            for gate in parameter.split(layer.hidden_size):
                yield name, gate
