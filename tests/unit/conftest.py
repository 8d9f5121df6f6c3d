"""Unit tests start no program; a fork of the test itself is quick, and some promises need one to be killed."""

import subprocess

import pytest


@pytest.fixture(autouse=True)
def no_program(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a unit test starts no program: put it into tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
