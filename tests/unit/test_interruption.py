"""Killed, stopped or without room on the disk at any moment, a run goes on to the same end and loses no checkpoint."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

import pytest
import torch

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.interruption import SIGNALS, at_once, stoppable
from dual_fairseq.compat import checkpoint_saving as compat


def in_a_child(work) -> int:
    """Run ``work`` in a forked process; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 99
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


OLD, NEW = {"weights": torch.zeros(5000)}, {"weights": torch.ones(9000)}


@pytest.mark.parametrize("written", [0, 1, 7000, 10**9], ids=["nothing", "a_byte", "a_part", "all"])
@pytest.mark.parametrize("how", ["saved", "copied"])
def test_killed_while_a_checkpoint_is_written_the_old_one_stays(tmp_path, how, written):
    path, other = tmp_path / "checkpoint_best.pt", tmp_path / "checkpoint_1_5.pt"
    torch.save(OLD, path)
    torch.save(NEW, other)

    def kill_after_some_bytes(file) -> None:
        file.write(other.read_bytes()[:written])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if how == "saved":
            compat.torch.save = lambda obj, file: kill_after_some_bytes(file)
            compat.checkpoint_utils.torch_persistent_save(NEW, str(path))
        else:
            compat.shutil.copyfileobj = lambda source, file, length: kill_after_some_bytes(file)
            compat.PathManager.copy(str(other), str(path), overwrite=True)

    assert in_a_child(work) == -signal.SIGKILL
    assert torch.equal(torch.load(path)["weights"], OLD["weights"])
    if how == "saved":  # the next save does not stumble over what is left
        compat.checkpoint_utils.torch_persistent_save(NEW, str(path))
    else:
        assert compat.PathManager.copy(str(other), str(path), overwrite=True)
    assert torch.equal(torch.load(path)["weights"], NEW["weights"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint_1_5.pt", "checkpoint_best.pt"]


@pytest.mark.parametrize("how", ["saved", "copied"])
def test_without_room_on_the_disk_the_old_checkpoint_stays_and_one_line_says_so(tmp_path, monkeypatch, how):
    path, other = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_best.pt"
    torch.save(OLD, path)
    torch.save(NEW, other)

    def work() -> None:
        # A limit on the size of a file is a full disk that needs no privileges.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        compat._PAUSE = 0
        try:
            if how == "saved":
                compat.checkpoint_utils.torch_persistent_save(NEW, str(path))
            else:
                compat.PathManager.copy(str(other), str(path), overwrite=True)
        except UserError as error:
            (tmp_path / "message").write_text(str(error))

    assert in_a_child(work) == 0
    message = (tmp_path / "message").read_text()
    assert message.startswith(f"{path}: this checkpoint cannot be written (File too large)")
    assert "the old one is whole" in message and "\n" not in message
    assert torch.equal(torch.load(path)["weights"], OLD["weights"])
    assert {file.name for file in tmp_path.iterdir()} == {path.name, other.name, "message"}


def test_a_copy_does_not_overwrite_unless_asked(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert not compat.PathManager.copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "b"


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_is_not_lost_in_an_import_that_swallows_exceptions(capfd, sent):
    def work() -> None:
        with stoppable(), at_once(lambda number: print(f"stopped by {number}", flush=True)):
            with contextlib.suppress(BaseException):  # as some of fairseq's modules do
                signal.raise_signal(sent)
            os._exit(0)

    assert in_a_child(work) == 128 + sent
    assert capfd.readouterr().out == f"stopped by {sent:d}\n"


def test_whoever_embeds_fairseq_keeps_handlers_of_their_own(tmp_path):
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        compat.checkpoint_utils.verify_checkpoint_directory(str(tmp_path / "save"))
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
