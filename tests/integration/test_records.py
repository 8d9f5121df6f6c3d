"""Whatever stands in a record of ours, it is taken or refused in one line."""

from __future__ import annotations

import copy
import itertools
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from helpers import TINY, configuration
from omegaconf import OmegaConf

from dual_fairseq.common.arguments import Parser
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import Data
from dual_fairseq.common.records import WrongShape, check_shape, parse_json, read_toml
from dual_fairseq.common.tables import read_scores, score_table
from dual_fairseq.data.options import BY_LANGUAGE, LIKE, _take_over
from dual_fairseq.data.resumable import Stage, run_stages
from dual_fairseq.data.subword import load_bpe
from dual_fairseq.experiment.recipe import read_with_bases
from dual_fairseq.pair.export import export
from dual_fairseq.pair.import_pair import import_pair
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pipeline import config
from dual_fairseq.plugin.checkpoint import load_state
from dual_fairseq.plugin.ranking import read_choice
from dual_fairseq.plugin.score_cache import read_cache
from dual_fairseq.plugin.task import DualTranslationTask
from dual_fairseq.plugin.validation_bleu import validate_as_target
from dual_fairseq.report.runs import Evaluation, Run, System
from dual_fairseq.report.runs import Stage as RunStage
from dual_fairseq.report.scores import score_rows, text_table

NAN, INFINITY = float("nan"), float("inf")
VALUES = [None, True, 0, -7, 1.5, 1e308, 10**30, NAN, INFINITY, "", "x", "a/../b", [], [[]], [1, "x"], {}, {"x": {}}]
DEEP = "[" * 100_000


def changed(record: Any, values: list[Any] = VALUES) -> Iterator[Any]:
    """The record with each of its values replaced by each of ``values``, or left out."""
    for path in _paths(record):
        for value in [*values, _paths]:  # the function stands for nothing at all
            again = copy.copy(record) if path else value
            place = again
            for step in path[:-1]:
                place[step] = copy.copy(place[step])
                place = place[step]
            if not path:
                yield None if value is _paths else value
                continue
            if value is _paths:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            yield again


def _paths(record: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield from ((key, *path) for path in _paths(value))


def one_line(call, *args) -> Any:
    """What the call gives, or None after a refusal in one line."""
    try:
        return call(*args)
    except UserError as error:
        message = str(error)
        assert error.code == f"dual_fairseq: error: {message}" and "\n" not in message and len(message) < 1000
        return None


def every_way(file: Path, record: Any, call) -> int:
    """Try the record, all changes of it, and what is no JSON; returns how many were taken."""
    file.write_text(json.dumps(record))
    call()
    taken = 0
    for content in (*map(json.dumps, changed(record)), "", "{", DEEP, "\ufeff{}", "NaN", "1" * 5000):
        file.write_text(content)
        taken += one_line(call) is not None
    for content in (b"\xff\xfe{", b"\0" * 10):
        file.write_bytes(content)
        assert one_line(call) is None
    file.unlink()
    assert one_line(call) is None
    file.mkdir()
    assert one_line(call) is None
    return taken


def test_weights(tmp_path):
    file = tmp_path / "weights.json"
    row = {
        "weights": {"forward": 1.0, "reverse": 0.5, "lm": 0, "source_lm": 0.0, "length": 0.1},
        "lenpen": 1,
        "bleu": 2,
    }
    record = {"best": "alpha", "alpha": row, "target_lang": "en"}
    assert every_way(file, record, lambda: read_choice(file)) < 60
    file.rmdir()
    file.write_text(json.dumps({**record, "alpha": {**row, "weights": {**row["weights"], "revers": 1.0}}}))
    with pytest.raises(UserError, match=f"{file}: is not the weights.json of dual-fairseq tune .no weight"[:60]):
        read_choice(file)


def test_scores(tmp_path):
    folder = tmp_path / "eval" / "test"
    folder.mkdir(parents=True)
    result = {
        "bleu": 30.1, "chrf": 50.2, "length_ratio": 1.0, "nll_bits_per_token": None, "sentences": 3,
        "bleu_signature": "nrefs:1|tok:13a", "dual_inference": {"bleu": 31.0, "chrf": 51.0, "length_ratio": 0.9},
    }  # fmt: skip

    def show() -> str:
        scores = read_scores(folder / "scores.json")
        stage = RunStage("dual", tmp_path, [], [], {}, True, {"test": Evaluation(folder, scores)})
        rows, _ = score_rows([System("dual", Run("run", tmp_path), stage)], "test", trials=0)
        return score_table([("dual", scores)]) + (text_table(rows) if rows else "")

    every_way(folder / "scores.json", {"de-en": result, "gap_abs": 1.5}, show)


def test_the_record_of_preprocessing(tmp_path):
    options = {"normalized": True, "tokenizer": "none", "normalize-punctuation": False, "lowercase": False,
               "subword": "bpe", "bpe-size": 10, "joint-bpe": True, "joined-dictionary": True, "vocab-threshold": 0,
               "vocab-size": 0}  # fmt: skip
    names = [name.removesuffix("?") for name in LIKE]
    assert [*options] == names
    record = {
        "source": "de", "target": "en", "normalized": True, "tokenizer": "none", "normalize_punctuation": False,
        "lowercase": False, "subword": "bpe", "bpe": {"type": "subword-nmt", "pieces": None}, "options": options,
    }  # fmt: skip

    def read() -> Data:
        given = Namespace(like=str(tmp_path), source_lang="de", target_lang="en", dest=str(tmp_path / "new"))
        for name in names:
            attribute = name.replace("-", "_")
            setattr(given, attribute, dict.fromkeys(("de", "en")) if attribute in BY_LANGUAGE else None)
        one_line(_take_over, given)
        return Data.from_folder(tmp_path)

    every_way(tmp_path / "preprocess.json", record, read)


def test_the_note_of_a_stage(tmp_path):
    (tmp_path / ".stages").mkdir()
    (tmp_path / "out").mkdir()
    stage = Stage("one", ("out",), {"size": 3}, lambda folder: {})
    note = tmp_path / ".stages" / "one.json"

    def do() -> dict[str, Any]:
        return run_stages(tmp_path, [stage], False)

    for content in changed({"settings": {"size": 3}, "result": {"lines": 3}}):
        note.write_text(json.dumps(content))
        one_line(do)
    note.write_text(DEEP)
    assert one_line(do) is None
    stage = replace(stage, shape={"lines": int})
    note.write_text(json.dumps({"settings": {"size": 3}, "result": {"lines": "x"}}))
    with pytest.raises(UserError, match=r"one.json: is damaged \(result.lines is not a whole number\); remove it"):
        do()


def test_a_file_of_options(tmp_path):
    parser = Parser("train", "")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--cpu", action="store_true")
    file = tmp_path / "train.toml"
    values = ("1", '"x"', "true", "nan", "[]", "[1]", "{}", "{a = 1}", "1979-05-27", '""', "[[]]", "0x10", "", "[[[")
    for key, value in itertools.product(("lr", "cpu", "config", "help", "fairseq-train", "other", "[lr]"), values):
        file.write_text(f"{key} = {value}\n")
        one_line(config.parse, parser, ["--config", str(file)])


def test_detokenizer_arguments():
    for content in (*map(json.dumps, VALUES), "{", DEEP):
        of_task = {"eval_bleu_detok_args": None, "eval_bleu_by_language": None}
        for option in of_task:
            one_line(validate_as_target, Namespace(source_lang="a", target_lang="b", **{**of_task, option: content}))


def npy(head: bytes) -> bytes:
    """A file of numpy with a head of any length, and no numbers."""
    return b"\x93NUMPY\x01\x00" + len(head + b"\n").to_bytes(2, "little") + head + b"\n"


def test_a_file_of_language_model_scores(tmp_path):
    path, sizes = tmp_path / "train.npy", np.array([3, 4, 90])
    good = np.array([-1.5, -2.5, NAN], dtype=np.float32)

    def write(array: np.ndarray) -> None:
        np.save(path, array, allow_pickle=False)
        path.with_suffix(".json").write_text('{"max_positions": 50}')

    write(good)
    assert read_cache(path, sizes).max_positions == 50
    for array in (
        good.astype("<U8"), good.astype(complex), good.astype(np.float16), good.astype(float), good.astype(">f4"),
        np.array([b"a", b"b", b"c"]), good.view(np.int32), good[:2], good[None], good[0],
        np.array([-1.5, NAN, NAN], np.float32), np.array([-1.5, -INFINITY, NAN], np.float32),
        np.array([-1.5, -2.5, -3.5], np.float32), np.zeros(3, dtype=[("a", np.float32)]),
    ):  # fmt: skip
        write(array)
        assert one_line(read_cache, path, sizes) is None, array
    write(good)
    head = path.read_bytes()
    for content in (
        b"",
        b"garbage",
        head[:-4],
        head[:60],
        head.replace(b"'fortran", b"(fortran"),
        b"PK\x03\x04" + head,
        *(
            head.replace(b"(3,), }" + b" " * 30, (value + b", }").ljust(37))
            for value in (b"(True,)", b"(9999999999999999999999,)")
        ),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1,)}"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1" + b"+1" * 4000 + b",)}"),
    ):
        path.write_bytes(content)
        assert one_line(read_cache, path, sizes) is None
    np.savez(tmp_path / "archive.npz", good)
    (tmp_path / "archive.npz").rename(path)
    assert one_line(read_cache, path, sizes) is None
    write(good)
    every_way(path.with_suffix(".json"), {"max_positions": 50}, lambda: read_cache(path, sizes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 3\nb\n", "line 2 is not a symbol"),
        ("a 3\nb x\n", "line 2 is not a symbol"),
        ("a 3\n\nb 2\n", "line 2 is not a symbol"),
        ("a -3\n", "line 1 is not a symbol"),
        ("a 3\nb 2\na 1\n", "line 3 repeats 'a'"),
        ("<unk> 3\n", "line 1 repeats '<unk>'"),
        (f"a {'9' * 5000}\n", "line 1 is not a symbol"),
        (b"a 3\n\xff 2\n", "is not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_damaged_dictionary(tmp_path, content, message):
    path = tmp_path / "dict.de.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
        Dictionary.load(str(path))


def test_a_dictionary_that_fairseq_takes(tmp_path):
    path = tmp_path / "dict.de.txt"
    path.write_text("a 3\n\u00a0 2\n<unk> 7 #fairseq:overwrite\r\nmadeupword0000 0\n", encoding="utf-8")
    assert Dictionary.load(str(path)).symbols == [*Dictionary().symbols, "a", "\u00a0", "<unk>", "madeupword0000"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "#version: 0.2\n",
        "#version: x\na b\n",
        "#version: 9.9\na b\n",
        "a\rb c\n",
        "a b c\n",
        "a\n",
        "#version: 0.2\na b\n\nc d\n",
        b"\xff \xfe",
    ],
)
def test_damaged_codes(tmp_path, content):
    path = tmp_path / "codes.de"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=str(path)):
        load_bpe(path)


# --- checkpoints


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> dict[str, Any]:
    """A pair that was not trained."""
    data = tmp_path_factory.mktemp("data")
    for language in ("aa", "bb"):
        (data / f"dict.{language}.txt").write_text("".join(f"{language}{i} {9 - i}\n" for i in range(9)))
    cfg = configuration(
        data, "--task", "dual_translation", "-s", "aa", "-t", "bb", *TINY["transformer"],
        "--criterion", "dual_cross_entropy", "--dual-lambda", 0,
    )  # fmt: skip
    task = DualTranslationTask.setup_task(copy.deepcopy(cfg.task), from_checkpoint=True)
    history = {"criterion_name": "C", "optimizer_name": "Adam", "lr_scheduler_state": {}, "num_updates": 3}
    return {
        "args": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": dict(task.build_model(copy.deepcopy(cfg.model), from_checkpoint=True).state_dict()),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task.state_dict(),
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def use(path: Path) -> str:
    load_pair(path, device="cpu")
    export(path, "aa-bb", path.parent / "out" / "aa-bb.pt")
    return "used"


def save(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_checkpoint_with_anything_in_any_place(share, state, tmp_path):
    assert use(save(state, tmp_path / "pair.pt")) == "used"
    few = [None, 7, "x", [], {1: "x"}]
    small = {**state, "cfg": {}, "model": {}}
    small["cfg"] = {name: {} for name in ("model", "task", "criterion", "checkpoint")}
    small["cfg"]["task"] = {"_name": 0, "source_lang": 0, "target_lang": 0, "data": 0}
    small["cfg"]["model"] = {"arch": 0}
    small["model"] = {next(iter(state["model"])): 0}
    for number, path in enumerate(_paths(small)):
        values = few[number % share :: share] if path else [*few, NAN, {}, torch.zeros(2), Namespace(x=1)]
        for value in values:
            damaged = copy.copy(state) if path else value
            place = damaged
            for step in path[:-1]:
                place[step] = copy.copy(place[step])
                if isinstance(place[step], Namespace):
                    place[step] = vars(place[step])
                place = place[step]
            if path:
                place[path[-1]] = value
            if one_line(use, save(damaged, tmp_path / f"{number}.pt")) is None and number % 4 == 0:
                one_line(import_pair, tmp_path / f"{number}.pt", tmp_path / "pair.pt", tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(cfg=[]), "cfg: is a list"),
        (lambda s: s["model"].update({7: torch.zeros(1)}), "model is not a record whose names are strings"),
        (lambda s: s["model"].update(x="weights"), "model.x is not"),
        (lambda s: s["cfg"]["task"].update(source_lang=None), "its languages are None and bb"),
        (lambda s: s.update(optimizer_history=[]), "cannot be read as a fairseq checkpoint"),
        (
            lambda s: s["optimizer_history"][0].update(num_updates="x"),
            r"optimizer_history\[0\].num_updates is not a whole",
        ),
        (lambda s: s.update(extra_state={"train_iterator": {"epoch": "x"}}), "train_iterator.epoch is not a whole"),
        (lambda s: s["task_state"].update(dictionaries={"aa": 7}), "dictionaries"),
    ],
)
def test_a_checkpoint_of_another_shape(state, tmp_path, edit, message):
    damaged = copy.deepcopy(state)
    edit(damaged)
    path = save(damaged, tmp_path / "pair.pt")
    with pytest.raises(UserError, match=message) as caught:
        use(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_weights_that_are_not_finite(state, tmp_path, value):
    damaged = copy.deepcopy(state)
    key = next(key for key, weights in damaged["model"].items() if weights.is_floating_point() and weights.dim() == 2)
    damaged["model"][key][0, 0] = value
    path = save(damaged, tmp_path / "pair.pt")
    with pytest.raises(UserError, match=f"{path}: holds weights that are not finite .{key}"):
        load_state(str(path), "checkpoint")


# --- TOML


@pytest.mark.parametrize(
    "content",
    [b"a", b"a = 1\na = 2", b"\xff = 1", b"a = " + b"[" * 5000, None, b".".join([b"a"] * 20_000) + b" = 1",
     b"[" + b" . ".join([b'"a b"'] * 60) + b"]\n"],
)  # fmt: skip
def test_what_is_no_toml(tmp_path, content):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"--config {path}: (is not TOML|No such file)") as caught:
        read_toml(path, "--config")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ['"a.toml"', '"b.toml"', "7"])
def test_a_recipe_that_is_based_on_itself(tmp_path, base):
    (tmp_path / "a.toml").write_text(f"base = {base}\n")
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    with pytest.raises(UserError, match=r"\.toml: base: name another recipe file"):
        read_with_bases(tmp_path / "a.toml")


# --- the check itself


def test_shapes():
    shape = {"a": int, "b?": [float], "c?": (None, {"x": str}), str: bool}
    for good in ({"a": 1}, {"a": 1, "b": [1, 2.5]}, {"a": 0, "c": None, "d": True}, {"a": 0, "c": {"x": "", "y": 5}}):
        check_shape(good, shape)
    for bad in (
        None, [], {}, {"a": True}, {"a": 1.0}, {"a": 2**70}, {"a": 1, "b": [NAN]}, {"a": 1, "b": 1}, {"a": 1, "c": {}},
        {"a": 1, "c": {"x": 1}}, {"a": 1, "d": 1}, {"a": 1, 5: True},
    ):  # fmt: skip
        with pytest.raises(WrongShape):
            check_shape(bad, shape)
    for text in ("", "{", "NaN", '{"a": -Infinity}', DEEP, "1" * 5000):
        with pytest.raises(ValueError):
            parse_json(text)
