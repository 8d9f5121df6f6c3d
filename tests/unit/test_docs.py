"""The pages are true: their commands can be run, their links lead somewhere, the README names every option."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from fairseq import options
from fairseq.tasks.translation import TranslationConfig
from helpers import ROOT

from dual_fairseq import __main__ as command_line
from dual_fairseq.data.corpora import multi30k_parser, wmt16_parser
from dual_fairseq.plugin.criterion import DualCrossEntropyConfig
from dual_fairseq.plugin.task_options import DualTranslationConfig

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "experiments").rglob("*.md"))]
FAIRSEQ = {
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-interactive": options.get_interactive_generation_parser,
    "fairseq-validate": options.get_validation_parser,
}
OF_THE_PLUGIN = ["--user-dir=dual_fairseq", "--task=dual_translation", "--arch=transformer",
                 "--criterion=dual_cross_entropy", "--optimizer=adam", "--lr-scheduler=inverse_sqrt"]  # fmt: skip
START = re.compile(r"dual-fairseq$|fairseq-[a-z]+$|make$|python$|scripts/.*\.sh$")


# --- what a page says ------------------------------------------------------------------------------------------------


def blocks_and_spans(text: str) -> tuple[list[str], list[str]]:
    """Lines of code blocks, continued lines joined; and pieces of code in running text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    fenced = [block for kind, block in blocks if kind not in ("python", "bibtex", "math")]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(fenced) + "".join(re.findall(r"^ {4}.*\n", prose, re.MULTILINE))
    return re.sub(r"\\\n\s*", "", lines).splitlines(), re.findall(r"`([^`\n]+)`", prose)


def command_in(line: str) -> list[str]:
    """The words of the command that it holds, without what stands before and where its output goes; or none."""
    line = re.sub(r'"?\$\(command -v ([\w-]+)\)"?', r"\1", line)
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark of a sentence
        return []
    starts = [i for i, word in enumerate(words) if START.match(word)]
    words = words[starts[0] :] if starts else []
    for i, word in enumerate(words):
        if word in ("<", ">", "|"):
            return words[:i]
    return words


# --- is it a command? ------------------------------------------------------------------------------------------------


class Reached(BaseException):
    """A command has come to read its options; holds its parser."""


def parser_of(run: Callable[[], object]) -> argparse.ArgumentParser:
    """Run a command up to the point where it reads its options."""

    def stop(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        raise Reached(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)  # parse_args and the others call it
        try:
            run()
        except Reached as reached:
            return reached.args[0]
    raise AssertionError("no options are read")


def check(words: list[str], whole: bool) -> None:
    """Raises SystemExit or ValueError for what is no command.

    Args:
        words: of the command.
        whole: whether it is given as it is run; else options have to exist and no more.
    """
    first, *rest = words
    own, theirs = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    if first == "make":
        if own and not re.search(rf"^{own[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
            raise ValueError(f"there is no make {own[0]}")
        for word in own[1:]:
            if word.startswith("BENCH_ARGS="):
                check(["python", "benchmarks/training.py", *shlex.split(word.split("=", 1)[1])], whole)
        return
    if first.startswith("scripts/"):
        if not (ROOT / first).is_file():
            raise ValueError(f"there is no {first}")
        return
    if first in FAIRSEQ:
        parser = FAIRSEQ[first]()
        if whole:
            options.parse_args_and_arch(parser, input_args=own)
            return
        options.parse_args_and_arch(
            parser, input_args=["data", *OF_THE_PLUGIN[: None if first == "fairseq-train" else 2]]
        )
    elif first == "python":
        if not own or not re.match(r"(experiments|benchmarks)/", own[0]):
            return
        parser = parser_of(script(own.pop(0)))
    elif first == "dual-fairseq":
        if not own or own[0].isupper():
            return
        if theirs and own[0] in ("train", "train-lm"):
            arch = own[own.index("--arch") :][:2] if "--arch" in own else []
            check(["fairseq-train", "data", *OF_THE_PLUGIN, *arch, *theirs], whole)
        if own[0] == "corpus" and len(own) > 1 and not own[1].startswith("-"):
            parser, own = {"multi30k": multi30k_parser, "wmt16": wmt16_parser}[own[1]](), own[2:]
            if theirs:
                check(["dual-fairseq", "preprocess", *theirs], whole=False)
        else:
            parser = parser_of(lambda: command_line.main([own[0]]))
            own = own[1:]
    else:
        return
    if whole:
        parser.parse_args(own)
    elif unknown := [
        w for w in own if re.match(r"--?[a-z]", w) and w.split("=")[0] not in parser._option_string_actions
    ]:
        raise ValueError(f"there is no option {' '.join(unknown)}")


def script(path: str) -> Callable[[], object]:
    """The ``main`` of a Python file of the repository."""
    file = ROOT / path
    if not file.is_file():
        raise ValueError(f"there is no {path}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, file.stem, module)
        spec.loader.exec_module(module)
    return module.main


def problems(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Commands of a page that cannot be run."""
    found = []
    for whole, pieces in zip((True, False), blocks_and_spans(text), strict=True):
        for piece in pieces:
            words = command_in(piece)
            if not words or (not whole and not START.match(piece.split()[0])):
                continue
            try:
                check([word for word in words if word != "..."], whole and "..." not in words)
            except (SystemExit, ValueError, RuntimeError, AssertionError) as error:
                found.append(f"{piece}: {error} {capsys.readouterr().err[-300:]}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_pages_exists_with_its_options(page, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert problems(page.read_text(), capsys) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "dual-fairseq scores run",
        "dual-fairseq score run --splits valid",
        "dual-fairseq filter scores.tsv --source a --target b",
        "dual-fairseq train data run --sizes tiny",
        "dual-fairseq train data run -- --no-such-option 1",
        "fairseq-train data --user-dir dual_fairseq --task dual_translation --dual-lamda 1",
        "python experiments/runs.py recipe work",
        "dual-fairseq experiment recipe work --seed 1 --no-such-option",
        "make benches",
        'make bench BENCH_ARGS="--parts speed"',
        "scripts/preprocessing.sh --help",
    ],
)
def test_a_wrong_command_is_found(wrong, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert problems(f"```\n{wrong} \\\n    < in > out  # comment\n```\n", capsys)
    assert problems(f"    {wrong}\n", capsys)


@pytest.mark.parametrize("kind", ["python", "math", "bibtex"])
def test_a_wrong_command_after_a_block_of_another_kind_is_found(kind, capsys):
    page = f"```{kind}\nx = 1\n```\n\nText.\n\n```\ndual-fairseq scores run\n```\n"
    assert problems(page, capsys) and not problems(page.replace("scores", "score"), capsys)


def test_a_wrong_option_in_running_text_is_found(capsys):
    assert problems("Use `dual-fairseq evaluate --lenpens` or `fairseq-generate --remove-bpes`.", capsys)
    assert not problems("Use `dual-fairseq evaluate --lenpen` or `fairseq-generate --remove-bpe`.", capsys)


# --- links and the option table --------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text())
        waiting += [t for link in links if "://" not in link and (t := (page.parent / link).resolve()) not in seen]
    assert not set(PAGES) - seen


def test_the_readme_names_every_option_of_the_plugin():
    inherited = {field.name for field in fields(TranslationConfig)}
    own = {f.name for config in (DualTranslationConfig, DualCrossEntropyConfig) for f in fields(config) if f.metadata}
    text = "".join((ROOT / page).read_text() for page in ("README.md", "docs/dual-inference.md"))
    missing = [name for name in own - inherited if f"`--{name.replace('_', '-')}" not in text]
    assert not missing
