"""Known noise of fairseq is kept out of a run's output; every other warning, ours and the user's, is shown."""

from __future__ import annotations

import re
import warnings

import pytest

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
