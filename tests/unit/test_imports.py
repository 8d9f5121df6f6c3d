"""Who may import whom."""

from __future__ import annotations

import ast
import gc
from graphlib import TopologicalSorter

import pytest
from helpers import PLUGIN

ALLOWED = {
    "common": set(),
    "compat": {"common"},
    "plugin": {"common", "compat"},
    "recurrent": {"common", "plugin"},
    "data": {"common", "plugin"},
    "pair": {"common", "compat", "plugin", "data"},
    "toy_corpus": {"common"},
    "report": {"common", "plugin", "pair"},
    "pipeline": {"common"},
    "experiment": {"common", "data", "plugin", "pair", "report", "pipeline"},
}
MODULES = {
    ".".join(path.relative_to(PLUGIN.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PLUGIN.rglob("*.py")
}


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, also inside functions."""
    path, found = MODULES[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            found |= {name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return {name for name in found if name in MODULES} - {module}


@pytest.fixture(autouse=True, scope="module")
def no_garbage():
    """CPython 3.11's parser fails where what is left of trainings in this process is collected while it parses."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_imports_of_a_package_are_read():
    assert {"dual_fairseq.compat", "dual_fairseq.plugin.task"} <= imports("dual_fairseq")
    assert "dual_fairseq.common.errors" in imports("dual_fairseq.plugin.model")


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    for module in (name for name in MODULES if name.split(".")[1:2] == [folder]):
        for other in imports(module):
            # the package itself only registers with fairseq
            assert other == "dual_fairseq" or other.split(".")[1] in ALLOWED[folder] | {folder}, f"{module}: {other}"


def test_every_folder_has_a_rule():
    assert {name.split(".")[1] for name in MODULES if name.count(".") > 1} <= ALLOWED.keys()


def test_no_modules_import_each_other_in_a_circle():
    tuple(TopologicalSorter({name: imports(name) for name in MODULES}).static_order())
