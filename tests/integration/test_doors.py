"""What every command refuses, or stands, at its door: numbers, streams, names of folders, a folder in use."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig
from helpers import ROOT, short_command

from dual_fairseq.__main__ import main, policy
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat import save_dir
from dual_fairseq.plugin.generator import DirectionTask
from dual_fairseq.plugin.score_cache import ScoreCache, cache_key


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["translate", "run", "-t", "en"], "--lenpen"),
        (["tune", "list", "--reference", "text", "-t", "en", "-o", "out"], "--lenpen"),
        (["filter", "scores", "--source", "a", "--target", "b", "--output-prefix", "c"], "--keep"),
        (["filter", "scores", "--source", "a", "--target", "b", "--output-prefix", "c"], "--threshold"),
        (["evaluate", "dest", "run"], "--lenpen"),
        (["train", "dest", "run"], "--dual-lambda"),
        (["train-lm", "data", "run"], "--lr"),
    ],
)
def test_numbers(command, option, value):
    with pytest.raises(UserError, match=f"{option}: (give a finite number|takes a number).* not '{value}'"):
        main([*command, f"{option}={value}"])


@pytest.mark.parametrize("value", [1e308, -60.0])
def test_a_length_penalty_that_no_number_can_hold(value):
    with pytest.raises(UserError, match=rf"--lenpen {re.escape(str(value))}: give a number from -50 to 50"):
        DirectionTask.build_generator(None, [], GenerationConfig(lenpen=value))


@pytest.mark.parametrize("name", ["lenpen", "unkpen", "temperature", "max_len_a"])
def test_numbers_of_a_search(name):
    options = GenerationConfig(**{name: float("nan")})
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} nan: give a finite number"):
        DirectionTask.build_generator(None, [], options)


@pytest.mark.parametrize(
    "command", [["train", "{dest}", "a:b/run"], ["train-lm", "{data}", "a:b"], ["evaluate", "{dest}", "a:b/pair.pt"],
                ["demo", "a:b"], ["synthesize", "{dest}", "a:b/pair.pt", "{dest}/out"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_colon_in_a_path_is_refused_before_any_work(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "preprocess.json").write_text('{"source": "de", "target": "en", "tokenizer": "none", "subword": "bpe"}')
    for name in ("dict.txt", "train.bin", "train.idx", "valid.bin", "valid.idx"):
        (tmp_path / name).touch()
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "pair.pt").touch()
    words = [word.format(dest=tmp_path, data=tmp_path) for word in command]
    with pytest.raises(UserError, match=r"reads ':' in a path as a separator: rename a:b"):
        main(words)
    assert list((tmp_path / "a:b").iterdir()) == [tmp_path / "a:b" / "pair.pt"]


@pytest.mark.parametrize(
    "command",
    [
        ["average", "--inputs", "a", "b", "-o", "a"],
        ["average", "--inputs", "a", "b", "-o", "link"],
        ["import", "--src2tgt", "a", "--tgt2src", "b", "--data", ".", "-o", "b"],
        ["export", "a", "--direction", "de-en", "-o", "a"],
        ["translate", "a", "-t", "en", "--input", "b", "--output", "b"],
        ["translate", "a", "-t", "en", "--input", "b", "--output", "a"],
        ["tune", "weights.json", "--reference", "b", "-t", "en", "-o", "."],
    ],
    ids=lambda command: f"{command[0]}-{command[-1]}",
)
def test_no_command_writes_over_what_it_reads(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "weights.json"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "a", tmp_path / "link")
    with pytest.raises(UserError, match=r"is the same file as the input .*; write to another file"):
        main(command)
    assert [(tmp_path / name).read_text() for name in ("a", "b", "weights.json")] == ["a", "b", "weights.json"]


# --- standard streams


def redirected(folder, redirection: str) -> subprocess.CompletedProcess:
    words = f"{shlex.join(short_command(folder))} {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", words], cwd=folder, capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.mark.parametrize("stream", ["<&-", "2>&-"])
def test_a_stream_that_is_closed_and_not_needed(tmp_path, stream):
    done = redirected(tmp_path, stream)
    assert done.returncode == 0 and "error" not in done.stderr
    assert (tmp_path / "out").read_text()


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_an_output_that_cannot_be_written(tmp_path, output):
    done = redirected(tmp_path, output)
    assert done.returncode == 1
    assert re.search(r"^dual_fairseq: error: input or output: [A-Z][a-z ]+\n\Z", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_a_reader_that_has_gone(arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dual_fairseq", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300, env=environment)
    os.close(writer)
    assert done.returncode in (0, 128 + signal.SIGPIPE) and not done.stderr


def test_an_output_that_knows_no_arrow(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    with policy("report"):
        print("de→en")
    assert output.buffer.getvalue() == b"de\\u2192en\n"


@pytest.mark.parametrize("script", ["preprocess.sh", "train_lm.sh", "train_dual.sh"])
def test_scripts_where_cd_has_a_path(tmp_path, script):
    (tmp_path / "scripts").mkdir()
    done = subprocess.run(
        ["bash", f"scripts/{script}", "--help"], cwd=ROOT, env={**os.environ, "CDPATH": f".:{tmp_path}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


# --- folders


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    save = str(tmp_path / "run")
    try:
        save_dir.verify_checkpoint_directory(save)
        with pytest.raises(UserError, match=f"--save-dir {save}: another run writes its checkpoints there"):
            save_dir.verify_checkpoint_directory(save)
        assert not os.listdir(save)
        ready, begun = os.pipe()
        child = os.fork()
        if not child:  # a worker that loads data
            os.write(begun, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        save_dir._unlock()
        save_dir.verify_checkpoint_directory(save)
        os.kill(child, 9)
        os.waitpid(child, 0)
    finally:
        save_dir._unlock()


def test_a_whole_score_cache_need_not_be_writable(tmp_path, monkeypatch):
    (tmp_path / "lm.pt").touch()
    dictionary = Dictionary()
    sentences = [torch.tensor([dictionary.eos()])] * 3
    key = cache_key(str(tmp_path / "lm.pt"), dictionary, sentences)

    class Model:
        max_positions = 5

        def sentence_log_prob(self, tokens, like):
            return like.new_full((len(tokens),), -1.0)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def scores(folder):
        return ScoreCache(str(folder), True).scores(
            sentences, np.ones(3), dictionary, str(tmp_path / "lm.pt"), Model, "train"
        )

    assert scores(tmp_path / "cache").log_probs.tolist() == [-1.0] * 3
    assert {file.name for file in (tmp_path / "cache").iterdir()} == {f"train.{key}.npy", f"train.{key}.json"}
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert scores(tmp_path / "cache").log_probs.tolist() == [-1.0] * 3
    with pytest.raises(UserError, match=r"--lm-score-cache .*other: cannot be used \(Read-only file system"):
        scores(tmp_path / "other")
