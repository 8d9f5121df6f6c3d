"""Files are written whole or not at all, never over what is read, and a failure is one line that names the file."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading

import numpy as np
import pytest
import torch

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError, printable
from dual_fairseq.common.files import CannotWrite, check_output, read_lines, whole_file, write_json, write_text


def in_a_child(work) -> int:
    """Run ``work`` in a forked process; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_file_gets_its_name_when_it_is_complete_and_nothing_is_left_of_a_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_what_was_written_before_an_error_is_kept_where_that_is_asked_for(tmp_path, capsys):
    path = tmp_path / "a.txt"
    with pytest.raises(KeyboardInterrupt), whole_file(path, keep_partial=True) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt.partial").read_bytes() == b"half" and not path.exists()
    assert capsys.readouterr().err == f"the finished part is in {path}.partial\n"
    (tmp_path / "a.txt.partial").unlink()
    with pytest.raises(KeyboardInterrupt), whole_file(path, keep_partial=True):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_file(tmp_path):
    path, other = tmp_path / "[a].txt", tmp_path / f".b.txt.{'0' * 32}"
    other.touch()

    def killed() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(killed) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with whole_file(path) as file:
        file.write(b"whole")
    assert set(tmp_path.iterdir()) == {path, other}


def test_two_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as file:
        file.write(b"first")
        file.flush()
        with whole_file(path) as other:
            other.write(b"the second, which is longer")
        assert path.read_bytes() == b"the second, which is longer"
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", ["the same name", "a link", "a hard link"])
def test_an_output_that_is_an_input_is_refused(tmp_path, how):
    source = tmp_path / "source"
    source.write_text("precious")
    path = tmp_path / ("source" if how == "the same name" else "other")
    if how == "a link":
        path.symlink_to(source)
    elif how == "a hard link":
        path.hardlink_to(source)
    with pytest.raises(UserError, match=f"{path}: is the same file as the input {source}; write to another file"):
        check_output(path, [None, tmp_path / "missing", source])
    check_output(tmp_path / "new", [source])


def test_a_mean_of_checkpoints_may_be_made_again(tmp_path):
    (tmp_path / "checkpoint_avg.pt").touch()
    check_output(tmp_path / "checkpoint_avg.pt")
    for name in ("_best", "_last", "_average", "_1_20", ".best_bleu_30.00", "12"):
        path = tmp_path / f"checkpoint{name}.pt"
        path.touch()
        with pytest.raises(UserError, match="has the name of a file of a run"):
            check_output(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the file to write"):
        write_text(tmp_path, "x")


def write_by_numpy(file) -> None:
    np.save(file, np.zeros(10_000))


def write_by_torch(file) -> None:
    torch.save({"weights": torch.zeros(10_000)}, file)


@pytest.mark.parametrize(
    "write", [lambda file: file.write(b"x" * 80_000), write_by_numpy, write_by_torch], ids=["bytes", "numpy", "torch"]
)
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, write):
    path, message = tmp_path / "a", tmp_path / "message"
    path.write_text("old")

    def work() -> None:
        # A limit on the size of a file is a full disk that needs no privileges.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            with whole_file(path) as file:
                write(file)
        except CannotWrite as error:
            message.write_text(str(error))

    assert in_a_child(work) == 0
    assert message.read_text().startswith(f"{path}: cannot be written (")
    assert "\n" not in message.read_text()
    assert path.read_text() == "old" and set(tmp_path.iterdir()) == {path, message}


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CannotWrite, match=f"cannot be written: there is no folder {tmp_path / 'none'}; make it first"):
        write_json(tmp_path / "none" / "a.json", {})


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), BrokenPipeError(errno.EPIPE, "x")])
def test_an_error_of_something_else_stays_what_it_is(tmp_path, error):
    with pytest.raises(type(error)) as caught, whole_file(tmp_path / "a"):
        raise error
    assert caught.value is error and not list(tmp_path.iterdir())


def test_a_pipe_is_written_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_text, args=(pipe, "through"))
    writer.start()
    assert pipe.read_text() == "through"
    writer.join()
    assert pipe.is_fifo()


def test_an_open_stream_is_written_directly_even_if_it_is_a_file(tmp_path):
    file = tmp_path / "a"
    file.write_text("before\n")
    with open(file, "a") as stream:
        write_text(f"/dev/fd/{stream.fileno()}", "through\n")
    assert file.read_text() == "before\nthrough\n" and os.listdir(tmp_path) == ["a"]


def test_lines_end_at_newlines_alone(tmp_path):
    (tmp_path / "text").write_bytes("a\u2028b\x0cc\r\n\nd".encode())
    assert read_lines(tmp_path / "text") == ["a\u2028b\x0cc\r", "", "d"]
    (tmp_path / "text").write_bytes(b"fine\nb\xe4d\n")
    with pytest.raises(UserError, match=r"text: is not UTF-8 \(byte 6\)"):
        read_lines(tmp_path / "text")
    with pytest.raises(UserError, match="none: there is no such file"):
        read_lines(tmp_path / "none")


# --- every command


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Files that stand for the inputs of commands; none is read before the output is looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "dual").mkdir(parents=True)
    for name in ("text.de", "text.en", "pair.pt", "lm.pt", "scores.tsv", "weights.json", "run/dual/train.log"):
        (tmp_path / name).write_text(f"precious {name}\n")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "translate pair.pt -t en --input text.de -o text.de",
        "translate pair.pt -t en --input text.de -o pair.pt",
        "translate pair.pt -t en --input text.de -o lm.pt --src-lm lm.pt --tgt-lm lm.pt",
        "translate pair.pt -t en --input text.de -o weights.json --dual-inference weights.json",
        "score pair.pt --source text.de --target text.en -o text.en",
        "score pair.pt --source text.de --target text.en -o pair.pt",
        "filter scores.tsv --source text.de --target text.en --keep 0.5 --output-prefix text",
        "filter scores.tsv --source text.de --target text.en --keep 0.5 --output-prefix new --dropped scores.tsv",
        "tune text.de weights.json --reference text.en -t en -o .",
        "average --inputs pair.pt lm.pt -o lm.pt",
        "export pair.pt --direction de-en -o pair.pt",
        "import --src2tgt pair.pt --tgt2src lm.pt --data . -o lm.pt",
        "report run -o run/dual/train.log",
    ],
)
def test_no_command_writes_over_what_it_reads(inputs, command):
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="is the same file as the input"):
        main(command.split())
    assert {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "command",
    [
        "report run -o run/train.toml",
        "report run -o data/preprocess.json",
        "export pair.pt --direction de-en -o run/dual/checkpoint_best.pt",
        "average --inputs pair.pt lm.pt -o run/dual/checkpoint_1_20.pt",
        "import --src2tgt pair.pt --tgt2src lm.pt --data . -o run/dual/checkpoint_last.pt",
        "translate pair.pt -t en --input text.de -o run/dual/options.txt",
        "score pair.pt --source text.de --target text.en -o test/scores.json",
        "select --pairs text.de --valid text.de --from text.en -o data/dual/dict.de.txt",
        "filter scores.tsv --source text.de --target text.en --keep 0.5 --output-prefix new --dropped run/train.toml",
    ],
)
def test_no_command_replaces_a_checkpoint_or_a_record(inputs, command):
    for name in ("run/train.toml", "run/dual/checkpoint_best.pt", "run/dual/checkpoint_last.pt", "run/dual/options.txt",
                 "run/dual/checkpoint_1_20.pt", "test/scores.json", "data/preprocess.json",
                 "data/dual/dict.de.txt"):  # fmt: skip
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs / name).write_text("precious\n")
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="exists, and has the name of a file of a run or of its data"):
        main(command.split())
    assert {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()} == before


def test_a_record_may_name_a_file_whose_name_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9/") + "犬"
    write_json(tmp_path / "record.json", {"train": name})
    assert json.loads((tmp_path / "record.json").read_bytes()) == {"train": name}
    write_text(tmp_path / "options.txt", name)
    assert (tmp_path / "options.txt").read_bytes() == os.fsencode(name)


def test_a_message_is_one_line_that_no_terminal_obeys():
    """A name in a file, or that of a file, may hold anything."""
    message = UserError("a\x1b[2J\n\x9b\u2028\u202eb é 犬 \u200d" + "x" * 10**6).code
    assert message.startswith(
        r"dual_fairseq: error: a\x1b[2J\n\x9b\u2028\u202eb é 犬 \u200d".replace(r"\u200d", "\u200d")
    )
    assert len(message) < 2100 and message.endswith("x")
    assert printable("a\n\tb\r", kept="\n\t") == "a\n\tb\\r"
