"""What newer Pythons and numpys need."""

from __future__ import annotations

import importlib.util
import multiprocessing
import pkgutil
import sys
import tomllib
import typing
from dataclasses import fields

import pytest
import torch
from fairseq.data import TokenBlockDataset
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import interpret_dc_type
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from helpers import ROOT

import dual_fairseq_python314
from dual_fairseq.compat import pythons


def test_fairseq_cuts_text_into_sentences_under_this_numpy():
    tokens = [torch.tensor([5, 6, 2]), torch.tensor([7, 2])]
    sentences = TokenBlockDataset(tokens, [3, 2], block_size=None, pad=1, eos=2, break_mode="eos")
    assert [sentence.tolist() for sentence in sentences] == [[5, 6, 2], [7, 2]]


@pytest.fixture
def no_start_method():
    """No start method of processes has been chosen; what the test chooses is taken back."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def start_method_of_a_command(monkeypatch, default: str) -> str | None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: [default, "fork"])
    monkeypatch.setattr(
        pythons, "_call_main", lambda cfg, main: [cfg, main, multiprocessing.get_start_method(allow_none=True)]
    )
    *passed, method = pythons.call_main("cfg", "main")
    assert passed == ["cfg", "main"]
    return method


def test_a_command_forks_what_python_would_start_anew(no_start_method, monkeypatch):
    assert start_method_of_a_command(monkeypatch, "forkserver") == "fork"
    assert multiprocessing.get_start_method(allow_none=True) is None  # of the program that called fairseq
    assert start_method_of_a_command(monkeypatch, "spawn") is None  # macOS: fork is not safe there


def test_a_chosen_start_method_is_kept(no_start_method, monkeypatch):
    multiprocessing.set_start_method("spawn")
    assert start_method_of_a_command(monkeypatch, "forkserver") == "spawn"


# --- Python 3.14


@pytest.fixture
def meta_path(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])


def test_torch_is_told_of_the_repair():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name,) = project["entry-points"]["torch.backends"].values()
    assert pkgutil.resolve_name(name) is dual_fairseq_python314.prepare


@pytest.mark.parametrize(("version", "finders"), [((3, 13, 9), 0), ((3, 14, 0), 1), ((3, 15, 0), 1)])
def test_a_python_that_needs_no_repair_is_left_alone(meta_path, monkeypatch, version, finders):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.delitem(sys.modules, dual_fairseq_python314.REPAIRED)
    before = len(sys.meta_path)
    dual_fairseq_python314.prepare()
    assert len(sys.meta_path) == before + finders


def test_what_is_imported_already_is_left_alone(meta_path, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    before = [*sys.meta_path]
    dual_fairseq_python314.prepare()
    assert sys.meta_path == before


def test_fairseq_is_repaired_once_while_it_is_imported(meta_path):
    sys.meta_path.insert(0, finder := dual_fairseq_python314._Finder())
    assert importlib.util.find_spec("fairseq.dataclass.configs") and finder in sys.meta_path
    spec = finder.find_spec(dual_fairseq_python314.REPAIRED)
    assert finder not in sys.meta_path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.interpret_dc_type is dual_fairseq_python314.interpret_dc_type
    assert module.gen_parser_from_dataclass.__globals__ is vars(module)


def test_types_of_all_options_are_those_that_fairseq_finds():
    """On Python 3.14 fairseq's function is ours, and the second assertion speaks."""
    kinds = [FairseqConfig, *MODEL_DATACLASS_REGISTRY.values(), *TASK_DATACLASS_REGISTRY.values()]
    kinds += [field.type for field in fields(FairseqConfig) if isinstance(field.type, type)]
    types = [field.type for kind in kinds if hasattr(kind, "__dataclass_fields__") for field in fields(kind)]
    assert len(types) > 500 and typing.Optional[int] in types
    for kind in types:
        ours = dual_fairseq_python314.interpret_dc_type(kind)
        assert ours == interpret_dc_type(kind)
        assert type(None) not in typing.get_args(ours)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (typing.Optional[int], int),
        (typing.Optional[list[str]], list[str]),
        (typing.Any, str),
        (int, int),
        (dict[str, None], dict[str, None]),
    ],
)
def test_the_type_of_an_option(kind, found):
    assert dual_fairseq_python314.interpret_dc_type(kind) == found


def test_a_type_that_is_a_text_is_an_error():
    with pytest.raises(RuntimeError):
        dual_fairseq_python314.interpret_dc_type("int")
