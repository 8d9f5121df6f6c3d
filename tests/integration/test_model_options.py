"""Options in which a checkpoint and a model may differ change nothing of what it computes; others are refused."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationTask
from helpers import TINY, configuration
from omegaconf import OmegaConf

from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.checkpoint_options import declared_options
from dual_fairseq.plugin.checkpoint import MAY_DIFFER, check_model_options, set_options

SMALL = "--encoder-embed-dim 16 --decoder-embed-dim 16"
HIDDEN = f"{SMALL} --encoder-hidden-size 16 --decoder-hidden-size 16"
ARCHS = {
    "transformer": TINY["transformer"],
    "lightconv": (
        f"--arch lightconv {SMALL} --encoder-layers 1 --decoder-layers 1 --encoder-ffn-embed-dim 16 "
        "--decoder-ffn-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-conv-dim 16 "
        "--decoder-conv-dim 16 --encoder-kernel-size-list [3] --decoder-kernel-size-list [3]"
    ).split(),
    "fconv": f"--arch fconv {SMALL} --encoder-layers [(16,3)] --decoder-layers [(16,3)]".split(),
    "lstm": TINY["lstm"],
    "rnnsearch": f"--arch rnnsearch {HIDDEN}".split(),
    "rnn_luong": f"--arch rnn_luong {HIDDEN}".split(),
}
# They name files, or freeze what stands in them, or prune what is loaded, or need a GPU.
NOT_TRIED = ("embed_path", "freeze_embed", "layers_to_keep", "offload_activations")


def of_arch(arch: str):
    return configuration("data", "--task", "translation", "-s", "a", "-t", "b", *ARCHS[arch])


def other_value(action, value):
    if action.nargs == 0 or isinstance(value, bool):
        return not value
    if action.choices:
        return next(choice for choice in action.choices if choice != value)
    if isinstance(value, int):
        return value + 8
    if isinstance(value, float):
        return value / 2 + 0.01
    if action.type in (int, float):
        return action.type(0.5) if action.type is float else 1
    return {"activation_fn": "gelu", "init_scheme": "uniform"}.get(action.dest, "[3, 5]")


def build(cfg, model):
    dictionary = Dictionary()
    for i in range(9):
        dictionary.add_symbol(f"w{i}")
    torch.manual_seed(1)
    return TranslationTask(cfg.task, dictionary, dictionary).build_model(copy.deepcopy(model)).eval()


@torch.no_grad()
def output(model) -> torch.Tensor:
    source = torch.tensor([[4, 5, 6, 7, 8, 2], [9, 4, 5, 2, 1, 1]])
    previous = torch.tensor([[2, 5, 6, 7], [2, 4, 9, 1]])
    return model(source, torch.tensor([6, 4]), previous)[0]


@pytest.mark.parametrize("arch", ARCHS)
def test_each_declared_option(arch):
    cfg = of_arch(arch)
    model = build(cfg, cfg.model)
    expected = output(model)
    tried = {True: 0, False: 0}
    check_model_options(cfg.model, copy.deepcopy(cfg.model), "file", "--init-src2tgt")
    for name, action in declared_options(arch).items():
        if any(part in name for part in NOT_TRIED) or not hasattr(cfg.model, name):
            continue
        other = copy.deepcopy(cfg.model)
        set_options(other, {name: other_value(action, getattr(cfg.model, name))})
        may_differ = bool(MAY_DIFFER.search(name))
        tried[may_differ] += 1
        if may_differ:
            check_model_options(cfg.model, other, "file", "--init-src2tgt")
            changed = build(cfg, other)
            if changed.state_dict().keys() != model.state_dict().keys():
                continue  # quantization noise has a weight of its own, whose absence is refused
            changed.load_state_dict(model.state_dict(), strict=True)
            assert torch.equal(output(changed), expected), name
        else:
            refusal = f"--init-src2tgt file: was trained with --{name}".replace("_", "-")
            for here, there in ((cfg.model, other), (other, cfg.model)):
                with pytest.raises(UserError, match=refusal):
                    check_model_options(here, there, "file", "--init-src2tgt")
    assert tried[True] and tried[False]


def test_the_same_value_in_another_form():
    cfg = of_arch("fconv")
    other = copy.deepcopy(cfg.model)
    set_options(other, {"encoder_layers": "[ (16, 3) ] * 1", "decoder_attention": "1"})
    check_model_options(cfg.model, other, "file", "--init-src2tgt")
    assert not OmegaConf.is_config(cfg.model), "a Namespace, as fairseq's own archs have it"
    assert OmegaConf.is_config(of_arch("rnnsearch").model)


def test_an_option_that_one_side_does_not_know_is_not_compared():
    cfg = of_arch("transformer").model
    older = copy.deepcopy(cfg)
    del older.encoder_embed_dim
    check_model_options(cfg, older, "file", "--init-src2tgt")
    check_model_options(older, cfg, "file", "--init-src2tgt")


def test_another_arch():
    with pytest.raises(UserError, match="was trained with --arch lstm, not transformer"):
        check_model_options(of_arch("transformer").model, of_arch("lstm").model, "file", "--restore-file")
