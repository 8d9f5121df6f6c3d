"""The set-up: scripts/setup.sh's checks and stages with a make-believe Python, and the pins against pyproject.toml."""

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

BUILD = ROOT / "scripts/build_fairseq"
TOOLS = ["bash", "cat", "cksum", "date", "dirname", "grep", "mkdir", "rm", "sed", "tail"]

# A torch of the version in FAKE, if any, for what setup.sh asks about it.
FAKE_MODULE = """
import importlib.metadata, os, sys, types
sys.modules["torch"] = types.ModuleType("torch") if os.environ["FAKE"] else None
importlib.metadata.version = lambda name: os.environ["FAKE"]
"""
# The real Python, with a lie told to what setup.sh asks it. It can do nothing but answer.
LYING_PYTHON = """#!{bash}
[ "$1" = -c ] || exit 99
exec {real} -c "{lie}
$2"
"""
# Plays the whole set-up: answers what setup.sh asks, makes an empty environment and writes down what pip is told.
# Whatever it does not know is an error, so that no code of setup.sh ever runs in the tests' own environment.
PLAYING_PYTHON = """#!{bash}
here="$(dirname "$0")"
case "$1 $2" in
    *version_info*) echo 3.11 ;;
    *ensurepip* | *Python.h* | *fairseq.data*) ;;
    *"import numpy"*) echo "${{FAKE_NUMPY:-}}" ;;
    *platlib*) echo "$here/../lib" ;;
    *-packages*) echo /parent/site-packages ;;
    *"import re, torch"*) FAKE="${{FAKE_TORCH:-}}" {real} -c "$FAKE_MODULE
$2" ;;
    "-m venv")
        echo "$*" >>"$CALLS"
        for place; do :; done
        mkdir -p "$place/bin" "$place/lib"
        cat "$0" >"$place/bin/python" && {chmod} +x "$place/bin/python"
        echo "#!$place/bin/python" >"$place/bin/pip"
        echo "home = nowhere" >"$place/pyvenv.cfg" ;;
    "-m pip")
        [ "$3" != config ] || echo "${{PIP_SAYS:-}}"
        echo "$*" >>"$CALLS"
        case "$*" in *"${{BREAKS_AT:-nothing}}"*) echo "pip says why" && exit 1 ;; esac ;;
    *) echo "unknown question: $*" >&2 && exit 99 ;;
esac
"""


class Checkout:
    """A copy of what the set-up reads, and a PATH that holds a few tools only."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.bin.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(BUILD, self.root / "scripts/build_fairseq")
        (self.root / "scripts/build_fairseq/__pycache__").mkdir(exist_ok=True)  # as a build leaves it
        for tool in TOOLS:
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        self.command("g++", "#!{bash}\ncat >/dev/null\n")

    def command(self, name: str, text: str, **names: str) -> None:
        path = self.bin / name
        path.write_text(
            text.format(bash=shutil.which("bash"), chmod=shutil.which("chmod"), real=sys.executable, **names)
        )
        path.chmod(0o755)

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {
            "PATH": str(self.bin),
            "CALLS": str(self.calls),
            "FAKE_MODULE": FAKE_MODULE,
            **variables,
        }
        command = [str(self.bin / "bash"), "scripts/setup.sh"]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60)

    def pip_calls(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith("-m pip install")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def refused(checkout: Checkout, *words: str, **variables: str) -> None:
    """The set-up ends with one line that holds the words, and has made and downloaded nothing."""
    before = sorted(checkout.root.rglob("*"))
    run = checkout.setup(**variables)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("setup: error: ") and run.stderr.count("\n") == 1, run.stderr
    for word in words:
        assert word in run.stderr
    assert sorted(checkout.root.rglob("*")) == before
    assert not checkout.calls.exists()


def test_unsupported_python_is_one_line(checkout: Checkout) -> None:
    checkout.command("python3", LYING_PYTHON, lie="import sys; sys.version_info = (3, 10, 0, 'final', 0)")
    refused(checkout, "needs Python 3.11 to 3.14", "python3 is 3.10", "PYTHON=")


def test_no_python_at_all_is_one_line(checkout: Checkout) -> None:
    refused(checkout, "needs Python 3.11 to 3.14", "PYTHON=")


def test_python_that_is_named_is_the_only_one_tried(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    checkout.command("old", LYING_PYTHON, lie="import sys; sys.version_info = (3, 9, 1, 'final', 0)")
    refused(checkout, "old is 3.9", PYTHON="old")
    refused(checkout, "none that runs", PYTHON="absent")


def test_python_of_another_name_is_found(checkout: Checkout) -> None:
    checkout.command("python3", LYING_PYTHON, lie="import sys; sys.version_info = (3, 15, 0, 'final', 0)")
    checkout.command("python3.12", PLAYING_PYTHON)
    assert checkout.setup().returncode == 0
    assert (checkout.root / ".venv/bin/python").exists()


def test_missing_venv_module_is_one_line(checkout: Checkout) -> None:
    lie = "import sys; sys.version_info = (3, 12, 1, 'final', 0); sys.modules['ensurepip'] = None"
    checkout.command("python3", LYING_PYTHON, lie=lie)
    refused(checkout, "no venv module", "apt install python3.12-venv")


def test_missing_headers_are_one_line(checkout: Checkout) -> None:
    lie = "import sys, sysconfig; sys.version_info = (3, 11, 1, 'final', 0); sysconfig.get_path = lambda _: '/absent'"
    checkout.command("python3", LYING_PYTHON, lie=lie)
    refused(checkout, "no Python.h", "apt install python3.11-dev")


def test_missing_compiler_is_one_line(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    (checkout.bin / "g++").unlink()
    refused(checkout, "no C++ compiler", "apt install g++")
    refused(checkout, "no C++ compiler", "absent++", CXX="absent++ -O2")


def test_compiler_that_does_not_compile_is_one_line(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    checkout.command("g++", "#!{bash}\necho 'fatal error: vector' >&2; exit 1\n")
    refused(checkout, "does not compile", "apt install g++")


def test_stages_in_order_and_nothing_the_second_time(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    run = checkout.setup()
    assert run.returncode == 0, run.stderr
    assert re.findall(r"^\[(\d/4)\]", run.stdout, re.MULTILINE) == ["1/4", "2/4", "3/4", "4/4"]
    torch, fairseq, rest = checkout.pip_calls()
    assert "torch numpy>=2 cython wheel setuptools<81" in torch
    assert "--no-cache-dir --no-build-isolation --no-deps fairseq-fixed" in fairseq
    assert "--no-build-isolation --editable .[dev]" in rest
    assert all(f"--constraint {checkout.root}/constraints.txt" in call for call in (torch, fairseq, rest))

    again = checkout.setup()
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert len(checkout.pip_calls()) == 3

    with (checkout.root / "constraints.txt").open("a") as pins:
        pins.write("another==1.0\n")
    assert "[4/4]" in checkout.setup().stdout


def test_failed_stage_shows_pip_and_is_taken_up_again(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    run = checkout.setup(BREAKS_AT="fairseq-fixed")
    assert run.returncode == 1
    assert "pip says why" in run.stderr and "building fairseq failed" in run.stderr
    run = checkout.setup()
    assert run.returncode == 0 and "ready" in run.stdout
    assert checkout.calls.read_text().count("-m venv") == 1


def test_torch_index_is_used_for_torch_alone(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    assert checkout.setup(TORCH_INDEX_URL="some-index").returncode == 0
    with_index = [call for call in checkout.pip_calls() if "some-index" in call]
    assert with_index == checkout.pip_calls()[:1]
    assert re.search(r"--no-deps --index-url some-index torch==[\d.]+$", with_index[0])


def test_suitable_torch_is_kept(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    run = checkout.setup(FAKE_TORCH="2.9.1+cu128", TORCH_INDEX_URL="some-index")
    assert run.returncode == 0, run.stderr
    assert "torch 2.9.1+cu128: keeping it" in run.stdout
    assert (checkout.root / ".venv/lib/parent-environment.pth").read_text() == "/parent/site-packages\n"
    assert "some-index" not in checkout.calls.read_text()
    assert all(f"--constraint {checkout.root}/.venv/constraints.txt" in call for call in checkout.pip_calls())
    kept = dict(re.findall(r"^([\w.-]+)==(\S+)", (checkout.root / ".venv/constraints.txt").read_text(), re.MULTILINE))
    assert kept["torch"] == "2.9.1+cu128"
    assert kept["numpy"] == str(pins()["numpy"]) and "setuptools" in kept
    free = {
        canonicalize_name(Requirement(line).name)
        for line in importlib.metadata.requires("torch") or []
        if "extra ==" not in line
    }
    assert not free & {canonicalize_name(name) for name in kept} - {"setuptools"}, "what torch asks for is torch's own"


def test_old_torch_is_not_kept(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    run = checkout.setup(FAKE_TORCH="1.13.1")
    assert "[2/4] installing torch" in run.stdout and "keeping it" not in run.stdout
    assert not (checkout.root / ".venv/lib/parent-environment.pth").exists()


def test_fairseq_is_built_anew_for_another_numpy(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    assert checkout.setup(FAKE_NUMPY="2.0.1").returncode == 0
    assert "force" not in checkout.calls.read_text()
    (checkout.root / ".venv/.setup-done").unlink()
    assert checkout.setup(FAKE_NUMPY="1.26.4").returncode == 0
    assert [call.split()[-2:] for call in checkout.pip_calls() if "force" in call] == [
        ["--force-reinstall", "fairseq-fixed"]
    ]


PLAYING_UV = """#!{bash}
echo "uv $*" >>"$CALLS"
exit "${{UV_ENDS:-0}}"
"""


def test_uv_does_the_last_step_and_pip_where_it_fails(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    checkout.command("uv", PLAYING_UV)
    run = checkout.setup(UV_ENDS="2")
    assert run.returncode == 0 and "uv failed" in run.stdout
    assert "--editable .[dev]" in checkout.pip_calls()[2]
    shutil.rmtree(checkout.root / ".venv")
    checkout.calls.unlink()

    run = checkout.setup()
    assert run.returncode == 0 and "uv failed" not in run.stdout
    assert len(checkout.pip_calls()) == 2
    rest = f"--constraint {checkout.root}/constraints.txt --no-build-isolation --editable .[dev]"
    assert f"uv pip install --python {checkout.root}/.venv/bin/python {rest}\n" in checkout.calls.read_text()


@pytest.mark.parametrize("variables", [{"FAKE_TORCH": "2.9.1"}, {"PIP_SAYS": "global.index-url='https://a.b'"}])
def test_uv_is_not_used_where_it_would_miss_something(checkout: Checkout, variables: dict[str, str]) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    checkout.command("uv", PLAYING_UV)
    assert checkout.setup(**variables).returncode == 0
    assert "uv pip" not in checkout.calls.read_text() and len(checkout.pip_calls()) == 3


def build(monkeypatch: pytest.MonkeyPatch, **options: object) -> dict[str, object]:
    """What setuptools gets of a setup.py's options."""
    fake = SimpleNamespace(setup=lambda **options: options)
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(BUILD / "sitecustomize.py"))
    return fake.setup(**options)


def test_only_needed_extensions_of_fairseq_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["fairseq.libbleu", "fairseq.data.data_utils_fast", "fairseq.data.token_block_utils_fast"]
    modules = [SimpleNamespace(name=name) for name in [*names, "fairseq.libbase", "fairseq.libnat", "binding"]]
    built = build(monkeypatch, name="fairseq-fixed", version="1", ext_modules=modules)
    assert built == {"name": "fairseq-fixed", "version": "1", "ext_modules": modules[:3]}
    assert build(monkeypatch, name="other", ext_modules=modules)["ext_modules"] == modules
    assert build(monkeypatch, name="other") == {"name": "other"}
    with pytest.raises(SystemExit, match=r"does not build fairseq\.data\.data_utils_fast, "):
        build(monkeypatch, name="fairseq-fixed", ext_modules=modules[1:])


def test_an_environment_of_another_python_is_named_not_removed(checkout: Checkout) -> None:
    checkout.command("python3", PLAYING_PYTHON)
    assert checkout.setup(BREAKS_AT="torch").returncode == 1
    checkout.calls.unlink()
    checkout.command("python3.12", LYING_PYTHON, lie="import sys; sys.version_info = (3, 12, 1, 'final', 0)")
    refused(checkout, "PYTHON=python3.12", "rm -rf .venv", PYTHON="python3.12")


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = [line.partition("==") for line in lines if not line.startswith("#")]
    assert all(mark for _, mark, _ in exact), "every line pins one version"
    return {canonicalize_name(name): Version(version) for name, _, version in exact}


def asked_for() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


def test_pins_are_what_the_project_asks_for() -> None:
    for requirement in asked_for():
        pin = pins()[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, f"{requirement} is pinned to {pin}"
    assert all(pin.local is None for pin in pins().values()), "a local version is one build of one machine"


def test_everything_that_is_installed_with_them_is_pinned() -> None:
    # Down from what pyproject.toml asks for; torch's own needs differ from build to build.
    queue, seen = asked_for(), {"torch"}
    while queue:
        name = canonicalize_name(queue.pop().name)
        if name not in seen:
            seen.add(name)
            needs = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            queue += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    assert len(seen) > 30
    assert seen - set(pins()) == set()


def test_every_target_is_in_the_help() -> None:
    make = shutil.which("make")
    assert make is not None
    shown = subprocess.run([make, "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ["help", "setup", "test", "test-slow", "lint", "demo", "clean"]:
        assert re.search(rf"^  make {target} +\w", shown, re.MULTILINE), target
    assert os.access(ROOT / ".ci/run", os.X_OK)
