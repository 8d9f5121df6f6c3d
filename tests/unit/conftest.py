"""Unit tests start no process."""

import os
import subprocess

import pytest


@pytest.fixture(autouse=True)
def no_process(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a unit test starts no process: put it into tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(os, "fork", refuse)
