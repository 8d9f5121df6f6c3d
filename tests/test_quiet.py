"""Known noise of fairseq is kept out of a run's output; every other warning, ours and the user's, is shown."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings

import pytest
from conftest import PLUGIN, ROOT, SOURCE, TARGET, fairseq, train

from dual_fairseq.common.quiet import KNOWN_NOISE, silence_known_noise

# One text of each kind, and the module that is blamed.
TEXTS = {
    "hydra.experimental.compose": "hydra.experimental.compose() is no longer experimental. Use hydra.compose()",
    "hydra.experimental.initialize": "\nThe version_base parameter is not specified.\nPlease specify a ...",
    "hydra.core.default_element": "In 'config': Usage of deprecated keyword in package header '# @package _group_'.",
    "sys": "\n'config' is validated against ConfigStore schema with the same name.\nThis behavior is deprecated",
    "hydra.compose": "\nThe strict flag in the compose API is deprecated.",
    "torch.utils.data.dataloader": "'pin_memory' argument is set as true but no accelerator is found, then ...",
    "fairseq.tasks.fairseq_task": "`torch.cuda.amp.autocast(args...)` is deprecated. Please use ...",
    "torch.nn.functional": "Support for mismatched key_padding_mask and attn_mask is deprecated. Use same type ...",
    "dual_fairseq.compat.processes": "`broadcast_buffers` is deprecated. Use `forward_sync_buffers` instead. ...",
    "torch.nn.utils.weight_norm": "`torch.nn.utils.weight_norm` is deprecated in favor of ...",
    "torch.nn.modules.module": "Using non-full backward hooks on a Module that does not take as input a single Tensor",
    "fairseq.modules.linearized_convolution": "Positional args are being deprecated, use kwargs instead. Refer to ...",
}


def warned(text: str, category: type[Warning], module: str) -> int:
    """How many warnings are shown after silencing, as Python starts up."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        silence_known_noise()
        warnings.warn_explicit(text, category, f"{module}.py", 1, module=module)
    return len(shown)


def test_each_known_warning_is_silenced_and_each_entry_is_of_use():
    assert len(TEXTS) == len(KNOWN_NOISE)
    for noise, (module, text) in zip(KNOWN_NOISE, TEXTS.items(), strict=True):
        assert re.match(noise.message, text)
        assert warned(text, noise.category, module) == 0


@pytest.mark.parametrize("module", ["dual_fairseq.plugin.task", "my_arch", "__main__"])
@pytest.mark.parametrize("category", [UserWarning, FutureWarning, DeprecationWarning])
def test_other_warnings_are_shown(module, category):
    assert warned("something else is deprecated", category, module) == 1
    assert warned(f"see: {TEXTS['sys']}", category, module) == 1  # the text must begin so


def test_what_is_known_of_one_module_is_not_silenced_in_another():
    for noise, text in zip(KNOWN_NOISE, TEXTS.values(), strict=True):
        if noise.module:
            assert warned(text, noise.category, "my_arch") == 1


def test_filters_of_the_user_come_first():
    noise, text = KNOWN_NOISE[-1], list(TEXTS.values())[-1]
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        warnings.simplefilter("always")  # python -W always
        silence_known_noise()
        warnings.warn_explicit(text, noise.category, "x.py", 1, module=list(TEXTS)[-1])
    assert len(shown) == 1


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
    assert_quiet(train(corpus / "dual", tmp_path, *options, "--user-dir", user_dir).output, OWN)
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


def test_without_the_plugin_there_is_noise_to_silence():
    """Else the test above could not fail."""
    argv = [sys.executable, "-c", "import sys; from fairseq import options; options.get_training_parser()\n"
            "sys.argv = ['x', 'data', '--arch', 'transformer']\n"
            "from fairseq.dataclass.utils import convert_namespace_to_omegaconf as convert\n"
            "convert(options.parse_args_and_arch(options.get_training_parser()))"]  # fmt: skip
    assert "'config' is validated against" in subprocess.run(argv, capture_output=True, text=True, timeout=120).stderr
