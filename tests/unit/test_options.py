"""Options that mean the same are named and explained the same by every command."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict

import pytest

from dual_fairseq.__main__ import COMMANDS, main
from dual_fairseq.common.arguments import Parser, count, decimal, positive
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.options import add_length_limit, length_limit_given, whole_number

SHARED = (
    *("--beam", "--cpu", "--dry-run", "--engine", "--input", "--int8", "--lenpen", "--max-len-a"),
    *("--max-len-b", "--nproc", "--output", "--sacrebleu-tokenize", "--seed", "--source-lang", "--split", "--src-lm"),
    *("--target-lang", "--tgt-lm", "--workers"),
)


def test_a_length_limit_that_equals_fairseqs_default_counts():
    parser = argparse.ArgumentParser()
    add_length_limit(parser)
    for words, limit in ((["0", "200"], (0, 200)), (["0", "7"], (0, 7)), (["1.5", "200"], (1.5, 200))):
        given = length_limit_given(parser.parse_args(["--max-len-a", words[0], "--max-len-b", words[1]]))
        assert (given["max_len_a"], given["max_len_b"]) != (0, 200)
        assert (given["max_len_a"], given["max_len_b"]) == (pytest.approx(limit[0], abs=1e-6), limit[1])
    assert length_limit_given(parser.parse_args([])) == {}


def test_shared_options_have_one_form_in_every_command(monkeypatch):
    parsers = {}
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda self: parsers.setdefault(self.prog, self))
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    assert len(parsers) == len(COMMANDS)
    forms = defaultdict(lambda: defaultdict(list))
    for command, parser in parsers.items():
        for option in SHARED:
            for action in (action for action in parser._actions if option in action.option_strings):
                explained = "" if option == "--output" else re.sub(r"\s*\(.*", "", action.help)  # defaults may differ
                forms[option][*action.option_strings[:2], explained].append(command)
    assert forms.keys() == set(SHARED)
    for option, commands in forms.items():
        assert len(commands) == 1, f"{option}: {dict(commands)}"


@pytest.mark.parametrize("name", ["trian", "run.toml", "pipeline.train", "./data"])
def test_an_unknown_command_is_refused_in_one_line(name, capsys):
    with pytest.raises(SystemExit):
        main([name])
    message = capsys.readouterr().err
    assert message.startswith(f"dual_fairseq: error: {name}: there is no such command;") and message.count("\n") == 1


@pytest.mark.parametrize(("smallest", "text"), [(1, "0"), (1, "x"), (1, "1.5"), (0, "-1"), (1, ""), (2, "1")])
def test_a_whole_number_is_nothing_else(smallest, text):
    assert whole_number(smallest)(f"{smallest}") == smallest
    with pytest.raises(argparse.ArgumentTypeError, match=f"give a whole number of at least {smallest}, not '{text}'"):
        whole_number(smallest)(text)


@pytest.mark.parametrize("text", ["9" * 5000, "0" * 5000 + "1", str(2**31)])
def test_a_number_has_a_size(text):
    for read in (whole_number(), *([positive, count, decimal] if len(text) > 20 else [])):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
    with pytest.raises(argparse.ArgumentTypeError):
        decimal("1e999")


def test_a_mistyped_choice_gets_a_suggestion():
    parser = Parser("train", "")
    parser.add_argument("--size", choices=("tiny", "small", "base"))
    for words in (["--size", "smal"], ["--size=smal"]):
        with pytest.raises(UserError, match=r"--size: invalid choice: 'smal' .*; did you mean small\?"):
            parser.parse_args(words)
    with pytest.raises(UserError) as refusal:
        parser.parse_args(["--size", "huge"])
    assert "did you mean" not in str(refusal.value)
