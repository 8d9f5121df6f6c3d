"""Known noise of fairseq is kept out of a run's output; every other warning, ours and the user's, is shown."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers import PLUGIN, ROOT, SOURCE, TARGET, fairseq, train


def test_libraries_do_not_chat_once_fairseq_has_asked_for_everything():
    program = "import dual_fairseq.compat, fairseq.models, matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr == ""


# A user's own plugin beside ours, which has something to say.
USER_MODULE = """
import sys, warnings
sys.path.insert(0, {root!r})
import dual_fairseq
warnings.warn("my own arch is experimental")
warnings.warn("my own arch is outdated", FutureWarning)
"""


@pytest.fixture(scope="module")
def user_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user") / "my_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(USER_MODULE.format(root=str(ROOT)))
    return folder


def assert_quiet(output: str, expected: list[str]) -> None:
    """No warning and no debugging message but those expected."""
    warnings_shown = re.findall(r"^.*Warning: ?.*", output, re.MULTILINE)
    assert len(warnings_shown) == len(expected), warnings_shown
    assert all(text in line for text, line in zip(expected, warnings_shown, strict=True))
    assert "DEBUG" not in output and "deprecat" not in output


OWN = ["UserWarning: my own arch is experimental", "FutureWarning: my own arch is outdated"]


def test_training_and_generation_are_quiet_and_the_user_s_warnings_are_shown(corpus, user_dir, tmp_path):
    options = ("--dual-lambda", 0, "--optimizer", "adam", "--lr", 0.01, "--max-epoch", 1, "--eval-bleu")
    assert_quiet(train(corpus / "dual", tmp_path, *options, "--user-dir", user_dir, here=False).output, OWN)
    pair = (
        "--task",
        "dual_translation",
        "-s",
        SOURCE,
        "-t",
        TARGET,
        "--path",
        tmp_path / "checkpoint_best.pt",
        "--cpu",
    )
    run = fairseq("generate", corpus / "dual", "--user-dir", PLUGIN, *pair)
    assert_quiet(run.output, [])
    assert "H-0\t" in run.output


@pytest.mark.slow
def test_without_the_plugin_there_is_noise_to_silence():
    """Else the test above could not fail."""
    argv = [sys.executable, "-c", "import sys; from fairseq import options; options.get_training_parser()\n"
            "sys.argv = ['x', 'data', '--arch', 'transformer']\n"
            "from fairseq.dataclass.utils import convert_namespace_to_omegaconf as convert\n"
            "convert(options.parse_args_and_arch(options.get_training_parser()))"]  # fmt: skip
    assert "'config' is validated against" in subprocess.run(argv, capture_output=True, text=True, timeout=120).stderr
