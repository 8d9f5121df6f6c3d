"""A stranger's checkpoint runs no code, whatever reads it; names of files are names and never commands."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import pickle
import re
import shutil
import struct
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import fairseq
import helpers
import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, data_utils
from fairseq_cli import generate, interactive, train, validate
from helpers import PLUGIN, ROOT, SOURCE, TARGET, TINY, preprocessed, run_command
from omegaconf import OmegaConf

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat import no_eval
from dual_fairseq.compat.checkpoint_options import take_options
from dual_fairseq.pair import export
from dual_fairseq.pipeline.probe import read_checkpoint
from dual_fairseq.plugin.checkpoint import load_state
from dual_fairseq.plugin.language_model import load_language_model

SCRIPTS = ROOT / "scripts"
NUMPY_CORE = ("numpy.core", "numpy._core")  # of numpy 1 and of numpy 2
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(PLUGIN.parent),
}


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


# --- every way in


PAIR = ("--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, "--cpu")
TRAIN = (*PAIR, *TINY["transformer"], "--criterion", "dual_cross_entropy", "--max-tokens", 300, "--dual-lambda", 0)
# what reads a checkpoint: a main function of fairseq or a command of ours, and its arguments
ENTRIES: dict[str, tuple[object, tuple[object, ...]]] = {
    "src-lm": (train, ("{data}", *TRAIN, "--dual-lambda", 0.1, "--src-lm", "{bad}", "--tgt-lm", "{lm}")),
    "tgt-lm": (train, ("{data}", *TRAIN, "--dual-lambda", 0.1, "--src-lm", "{lm}", "--tgt-lm", "{bad}")),
    "init-src2tgt": (train, ("{data}", *TRAIN, "--init-src2tgt", "{bad}")),
    "init-tgt2src": (train, ("{data}", *TRAIN, "--init-tgt2src", "{bad}")),
    "resume": (train, ("{data}", *TRAIN, "--save-dir", "{resumed}")),
    "restore-file": (train, ("{data}", *TRAIN, "--restore-file", "{bad}")),
    "finetune-from-model": (train, ("{data}", *TRAIN, "--finetune-from-model", "{bad}")),
    "generate": (generate, ("{data}", *PAIR, "--path", "{bad}")),
    "interactive": (interactive, ("{data}", *PAIR, "--path", "{bad}")),
    "validate": (validate, ("{data}", *PAIR, "--batch-size", 8, "--path", "{bad}")),
    "generate-dual-inference": (
        generate,
        ("{data}", *PAIR, "--path", "{pair}", "--dual-inference-alpha", 0.5, "--src-lm", "{bad}", "--tgt-lm", "{lm}"),
    ),
    "translate": ("translate", ("{bad}", "-t", TARGET, "--cpu", "--input", "{text}")),
    "score": ("score", ("{bad}", "--split", "valid", "--data", "{data}", "--no-lm")),
    "export": ("export", ("{bad}", "--direction", f"{SOURCE}-{TARGET}", "-o", "{out}")),
    "import-src2tgt": ("import", ("--src2tgt", "{bad}", "--tgt2src", "{bad}", "--data", "{data}", "-o", "{out}")),
    "average": ("average", ("--inputs", "{bad}", "{bad}", "--output", "{out}")),
}


def checkpoint_of(kind: str, path: Path, marker: Path, pair: Path) -> None:
    if kind == "pickle":  # as torch wrote files long ago
        path.write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    elif kind == "archive":
        torch.save({"model": Hostile(marker)}, path)
    elif kind == "in_a_good_one":  # a whole checkpoint of a pair, with something more in it
        state = torch.load(pair)
        state["extra_state"]["more"] = Hostile(marker)
        torch.save(state, path)


def refusal(entry: str, corpus: Path, bad: Path, folder: Path, monkeypatch, **more) -> str:
    """What the command says that an entry hands a bad checkpoint to; it names the file and leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        enter(entry, corpus, bad, folder, monkeypatch, **more)
    message = str(caught.value)
    assert str(folder / "resumed" / "checkpoint_last.pt" if entry == "resume" else bad) in message
    assert not (folder / "out.pt").exists()
    return message


def enter(
    entry: str, corpus: Path, bad: Path, folder: Path, monkeypatch, pair: Path | None = None, lms: dict | None = None
) -> None:
    """Hand a checkpoint to one of ``ENTRIES``."""
    resumed = folder / "resumed"
    resumed.mkdir()
    shutil.copy(bad, resumed / "checkpoint_last.pt")
    (folder / "text").write_text("s1 s2\n")
    lm = (lms or {}).get(SOURCE if entry == "tgt-lm" else TARGET)
    places = {
        "data": corpus / "dual", "bad": bad, "resumed": resumed, "lm": lm, "pair": pair,
        "text": folder / "text", "out": folder / "out.pt",
    }  # fmt: skip
    program, arguments = ENTRIES[entry]
    argv = [str(argument).format(**places) for argument in arguments]
    if program is train and entry != "resume":
        argv += ["--save-dir", str(folder / "save")]
    monkeypatch.chdir(folder)
    if isinstance(program, str):
        main([program, *argv])
    else:
        monkeypatch.setattr(sys, "argv", [entry, *argv])
        program.cli_main()


@pytest.mark.parametrize(
    "kind",
    [pytest.param("pickle", marks=pytest.mark.slow), pytest.param("archive", marks=pytest.mark.slow), "in_a_good_one"],
)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_hostile_checkpoint_runs_nothing_and_is_refused_by_name(
    corpus, trained_pair, language_models, tmp_path, monkeypatch, entry, kind
):
    pair = trained_pair[0] / "checkpoint_best.pt"
    marker, bad = tmp_path / "ran", tmp_path / "bad.pt"
    checkpoint_of(kind, bad, marker, pair)
    message = refusal(entry, corpus, bad, tmp_path, monkeypatch, pair=pair, lms=language_models)
    assert not marker.exists(), "it ran"
    old = "it is no archive of PyTorch 1.6 or newer"
    assert "\n" not in message and (old if kind == "pickle" else "a file that could run code is not loaded") in message
    assert kind == "pickle" or f"asks for {os.mkdir.__module__}.mkdir" in message
    assert not (tmp_path / "out.pt").exists()

    with contextlib.suppress(RuntimeError):  # of a bare pickle torch finds out afterwards that it is no checkpoint
        torch.load(bad, weights_only=False)
    assert marker.is_dir(), "the test's own checkpoint is harmless"


# --- strings that fairseq would evaluate


FCONV = (
    "--arch fconv --encoder-embed-dim 16 --encoder-layers [(16,3)]*2 --decoder-embed-dim 16 "
    "--decoder-layers [(16,3)]*2 --decoder-out-embed-dim 16 --max-source-positions 64 --max-target-positions 64"
)


@pytest.fixture(scope="module")
def fconv_pair(corpus, tmp_path_factory) -> Path:
    """A pair whose layers are given as an expression."""
    directory = tmp_path_factory.mktemp("fconv")
    helpers.train(corpus / "dual", directory, "--dual-lambda", 0, "--max-update", 2, "--optimizer", "adam", model=FCONV)
    return directory / "checkpoint_best.pt"


def expression(marker: Path, value: str = "[(16, 3)] * 2") -> str:
    """Evaluated, it makes a folder and is a good value of the option."""
    return f"[__import__('os').mkdir({str(marker)!r})] and {value}"


def edited(source: Path, path: Path, **options: dict[str, object]) -> Path:
    """A copy of a checkpoint with other options: section → name → value."""
    state = torch.load(source)
    for section, values in options.items():
        node = state["cfg"].setdefault(section, {})
        (node if isinstance(node, dict) else vars(node)).update(values)
    torch.save(state, path)
    return path


EVALUATED = [entry for entry in ENTRIES if entry not in ("src-lm", "tgt-lm", "generate-dual-inference")]


@pytest.mark.parametrize("entry", EVALUATED)
def test_no_option_of_a_checkpoint_is_evaluated(corpus, fconv_pair, tmp_path, monkeypatch, entry):
    marker = tmp_path / "ran"
    bad = tmp_path / "bad.pt"
    source = fconv_pair
    if entry == "import-src2tgt":
        source = tmp_path / "single.pt"
        export.export(fconv_pair, f"{SOURCE}-{TARGET}", source, corpus / "dual")
        state = torch.load(source)
        vars(state["args"])["encoder_layers"] = expression(marker)
        torch.save(state, bad)
    else:
        edited(source, bad, model={"encoder_layers": expression(marker)})
    message = refusal(entry, corpus, bad, tmp_path, monkeypatch)
    assert not marker.exists(), "it ran"
    assert "--encoder-layers" in message and "\n" not in message


CHARACTERS = {"character_embeddings": True, "character_embedding_dim": 4, "max_char_input_length": 5}


@pytest.mark.parametrize(
    "language, option, others",
    [
        (TARGET, "character_filters", CHARACTERS),
        (SOURCE, "decoder_layers", {"_name": "fconv_lm", "arch": "fconv_lm", "decoder_attention": "False"}),
    ],
)
def test_no_option_of_a_language_model_is_evaluated(corpus, language_models, tmp_path, language, option, others):
    marker = tmp_path / "ran"
    bad = edited(
        language_models[language], tmp_path / "bad.pt", model={**others, option: expression(marker, "[(1, 4)]")}
    )
    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{language}.txt"))
    with pytest.raises(UserError, match=f"bad.pt.*--{option.replace('_', '-')} ") as caught:
        load_language_model(str(bad), dictionary, language, "--src-lm")
    assert not marker.exists() and "\n" not in str(caught.value)


def test_fairseq_evaluates_nothing():
    """Wherever its code says ``eval``, once the plugin is imported, it means the parser of plain values."""
    names = [name for name in sys.modules if name.partition(".")[0] in ("fairseq", "fairseq_cli")]
    assert len(names) > 300
    evaluating = 0
    for name in names:
        source = Path(getattr(sys.modules[name], "__file__", None) or os.devnull)
        called = {
            node.func.id
            for node in ast.walk(ast.parse(source.read_bytes() if source.suffix == ".py" else b""))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"exec", "compile", "__import__"}, name
        if "eval" in called:
            evaluating += 1
            assert vars(sys.modules[name])["eval"] is no_eval.evaluate, name
    assert evaluating > 15, "fairseq has changed, or this test does not see what it looks for"
    with pytest.raises(UserError, match="not a plain value"):
        fairseq.utils.eval_str_list("__import__('os').getcwd()")
    assert fairseq.utils.eval_str_list("0.5,1e-3") == [0.5, 0.001]
    assert fairseq.utils.eval_bool("False") is False and fairseq.utils.eval_bool(True, default=True) is True


def test_fairseq_loads_nothing_lazily_that_evaluates():
    """Its modules that say ``eval`` are there when the plugin is imported, but for the commands of other purposes."""
    folder = Path(fairseq.__file__).parent
    saying = [path for path in folder.rglob("*.py") if re.search(r"(?<![\w.])(eval|exec)\(", path.read_text())]
    inside = [path.relative_to(folder).with_suffix("") for path in saying if "examples" not in path.parts]
    modules = [".".join(("fairseq", *path.parts)) for path in inside]
    assert len(modules) > 15 and all(name in sys.modules for name in modules), modules


# --- what is taken from a checkpoint


@pytest.fixture
def hostile_options(trained_pair) -> dict[str, Any]:
    """A good checkpoint of which every option that fairseq knows, and one that it does not, has been set."""
    state = torch.load(trained_pair[0] / "checkpoint_best.pt")
    for section, values in state["cfg"].items():
        if isinstance(values, dict):
            known = {name: "hostile" for name in values if name not in ("_name", "task", "criterion")}
            values.update({name: value for name, value in known.items() if name not in TAKEN.get(section, ())})
            values["of_tomorrow"] = "hostile"
    vars(state["cfg"]["model"]).update(of_tomorrow="hostile", user_dir="hostile", encoder_embed_path="hostile")
    state["cfg"]["of_tomorrow"] = {"hostile": "hostile"}
    return state


# what README.md and SECURITY.md say is taken
TAKEN = {
    "task": ["data", "src_lm", "tgt_lm", "source_lang", "target_lang", "left_pad_source", "left_pad_target",
             "max_source_positions", "max_target_positions", "truncate_source", "upsample_primary",
             "required_seq_len_multiple", "load_alignments"],
    "criterion": ["label_smoothing", "sentence_avg", "dual_lambda", "dual_lambda_reverse", "dual_start_update",
                  "dual_ramp_updates", "dual_gap_clip"],
    "checkpoint": ["save_dir"],
}  # fmt: skip


def test_an_option_that_is_not_listed_is_not_taken(hostile_options, trained_pair):
    given = torch.load(trained_pair[0] / "checkpoint_best.pt")["cfg"]
    cfg = take_options(hostile_options)["cfg"]
    options = OmegaConf.to_container(cfg, enum_to_str=True)
    assert "hostile" not in str(options) and "of_tomorrow" not in str(options)
    for section, names in TAKEN.items():
        assert {name: options[section][name] for name in names} == {name: given[section][name] for name in names}
    model, trained = vars(options["model"]), vars(given["model"])
    assert model["encoder_embed_path"] is None
    assert {name: trained[name] for name in model if name not in ("encoder_embed_path", "decoder_embed_path")} == {
        name: value for name, value in model.items() if name not in ("encoder_embed_path", "decoder_embed_path")
    }
    assert options["task"]["lm_score_cache"] is options["task"]["dual_inference_alpha"] is None
    assert options["common"]["user_dir"] is options["common"]["tensorboard_logdir"] is None


def test_old_checkpoints_give_up_no_more(hostile_options):
    """fairseq's older form: all options in one Namespace, whose values were written into hydra's language."""
    cfg = hostile_options["cfg"]
    options = {**vars(cfg["model"]), **{name: cfg["task"][name] for name in TAKEN["task"]}}
    options |= {"arch": "transformer", "task": "dual_translation", "criterion": "dual_cross_entropy"}
    options |= {
        "user_dir": "hostile",
        "lm_score_cache": "hostile",
        "bpe": "hostile",
        "save_dir": "run",
        "tokenizer": "${x}",
    }
    state = take_options({**hostile_options, "cfg": None, "args": Namespace(**options)})
    assert state["args"] is None
    taken = OmegaConf.to_container(state["cfg"], enum_to_str=True)
    assert "hostile" not in str(taken) and "${" not in str(taken)
    assert taken["model"].encoder_layers == 1 and taken["task"]["source_lang"] == SOURCE


def test_an_old_checkpoint_without_length_limits_gets_the_usual_ones(hostile_options):
    cfg = hostile_options["cfg"]
    options = {**vars(cfg["model"]), **{name: cfg["task"][name] for name in TAKEN["task"]}}
    options |= {"arch": "transformer", "task": "dual_translation", "criterion": "dual_cross_entropy"}
    options = {name: value for name, value in options.items() if not name.startswith("max_")}
    for given, limit in (({}, 1024), ({"max_positions": 77}, 77)):
        state = take_options({**hostile_options, "cfg": None, "args": Namespace(**options, **given)})
        assert state["cfg"].task.max_source_positions == state["cfg"].task.max_target_positions == limit


def nested(depth: int) -> list[Any]:
    """Lists that hold each other: as a text, this one would have 2 ** depth items."""
    bomb: list[Any] = []
    for _ in range(depth):
        bomb = [bomb, bomb]
    return bomb


@pytest.mark.parametrize(
    "section, name, value",
    [
        ("model", "encoder_layers", "__import__('os').getpid()"),
        ("model", "encoder_layers", "[0] * 10**9"),
        ("model", "encoder_layers", "(" * 5000),
        ("model", "encoder_layers_to_keep", "'${oc.env:HOME}'"),
        ("model", "dropout", "${oc.env:HOME}"),
        ("model", "encoder_embed_dim", {"a": 1}),
        ("model", "encoder_embed_dim", nested(60)),
        ("model", "_name", nested(60)),
        ("model", "encoder_attention_heads", -1),
        ("model", "max_source_positions", 0),
        ("task", "left_pad_source", [True, True]),
        ("task", "left_pad_source", 0.5),
        ("task", "max_target_positions", 1.5),
        ("criterion", "dual_start_update", math.nan),
        ("model", "encoder_embed_dim", [0] * 10_000),
        ("model", "activation_fn", "${oc.env:HOME}"),
        ("model", "activation_fn", "swish"),
        ("task", "data", "${oc.env:HOME}"),
        ("task", "data", 7),
        ("task", "src_lm", "a\nb"),
        ("task", "source_lang", "../../x"),
        ("task", "target_lang", "x/y"),
        ("task", "left_pad_source", "True"),
        ("criterion", "dual_lambda", "1.0"),
        ("criterion", "dual_lambda", {"_target_": "os.getpid"}),
        ("checkpoint", "save_dir", "${oc.env:HOME}"),
        ("model", "_name", "no_arch"),
        ("task", "_name", "x y"),
    ],
)
def test_an_impossible_value_is_refused_by_name(trained_pair, tmp_path, section, name, value):
    bad = edited(trained_pair[0] / "checkpoint_best.pt", tmp_path / "bad.pt", **{section: {name: value}})
    with pytest.raises(UserError) as caught:
        load_state(str(bad), "--path")
    option = {"_name": "arch" if section == "model" else section}.get(name, name.replace("_", "-"))
    assert f"--path {bad}: " in str(caught.value) and f"--{option} " in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(bad))


@pytest.mark.parametrize("old", [False, True], ids=["cfg", "args"])
def test_an_average_publishes_nothing_of_this_machine(hostile_options, tmp_path, monkeypatch, old):
    monkeypatch.setenv("SECRET", "hunter2")
    cfg = hostile_options["cfg"]
    wanted = "${oc.env:SECRET}"
    cfg["common"]["user_dir"] = cfg["task"]["eval_bleu_args"] = cfg["model"].encoder_embed_path = wanted
    cfg["common_eval"] = {"path": wanted}
    if old:
        hostile_options |= {
            "args": Namespace(**{**vars(cfg["model"]), "task": "dual_translation", "bpe": wanted}),
            "cfg": None,
        }
        del hostile_options["args"].of_tomorrow
        hostile_options["args"].arch = "transformer"
    torch.save(hostile_options, tmp_path / "a.pt")
    main(["average", "--inputs", str(tmp_path / "a.pt"), str(tmp_path / "a.pt"), "--output", str(tmp_path / "mean.pt")])
    with zipfile.ZipFile(tmp_path / "mean.pt") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"hunter2" not in content and b"oc.env" not in content


def test_validation_takes_numbers_and_language_models_and_makes_nothing(corpus, trained_pair, tmp_path):
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "__init__.py").write_text(f"import os; os.mkdir({str(tmp_path / 'imported')!r})")
    folders = {name: str(tmp_path / name) for name in ("lm_score_cache", "results_path", "save_dir")}
    bad = edited(
        trained_pair[0] / "checkpoint_best.pt",
        tmp_path / "bad.pt",
        task={**folders, "dual_inference_alpha": 0.5, "eval_bleu": True, "eval_bleu_args": '{"beam": 100000}'},
        common={
            "user_dir": str(tmp_path / "module"),
            "tensorboard_logdir": folders["save_dir"],
            "log_file": folders["save_dir"],
        },
        checkpoint={"save_dir": folders["save_dir"]},
    )
    run = helpers.fairseq("validate", corpus / "dual", *PAIR, "--batch-size", 8, "--path", bad)
    assert "gap_abs" in run.output and "| dual_lambda 0.02" in run.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt", "module"]
    assert os.listdir(tmp_path / "module") == ["__init__.py"]


def test_only_plain_records_may_be_unpickled():
    """What the plugin adds to PyTorch's own list: neither of them does anything with what a file says."""
    added = torch.serialization.get_safe_globals()
    names = {item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__name__}" for item in added}
    numpy = {f"{module}.multiarray.{name}" for module in NUMPY_CORE for name in ("_reconstruct", "scalar")}
    numpy |= {"numpy.ndarray", "numpy.dtype"}
    assert {name for name in names if not name.startswith("torch.")} == {"argparse.Namespace", *numpy}
    made_by = {item[0].__module__ for item in added if isinstance(item, tuple) and item[1].startswith("numpy")}
    assert made_by == {"dual_fairseq.compat.numpy_records"}, "numpy's own trust what they get"


def spelled(path: Path, module: str, core: str) -> None:
    """Have a checkpoint ask for numpy's ``module`` by the name that it has in one numpy."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    (found,) = {match[1] for match in re.finditer(rb"c(numpy\._?core\.multiarray)\n", parts[pickled])}
    parts[pickled] = parts[pickled].replace(b"c" + found + b"\n", f"c{core}.{module}\n".encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.fixture
def with_numbers(trained_pair, tmp_path) -> Path:
    """A checkpoint with numpy's arrays and numbers in it, as fairseq keeps them of BLEU."""
    path = tmp_path / "numbers.pt"
    state = torch.load(trained_pair[0] / "checkpoint_last.pt")
    state["extra_state"]["metrics"] = [np.array([[1, 2], [3, 4]]), np.array([0.5]), np.float64(0.25), np.int64(7)]
    torch.save(state, path)
    return path


@pytest.mark.parametrize("core", NUMPY_CORE)
def test_a_checkpoint_of_each_numpy_is_read(with_numbers, core):
    spelled(with_numbers, "multiarray", core)
    counts, mean, score, number = load_state(str(with_numbers), "--path")["extra_state"]["metrics"]
    assert counts.tolist() == [[1, 2], [3, 4]] and mean.tolist() == [0.5]
    assert (score, number) == (0.25, 7) and isinstance(score, np.float64) and isinstance(number, np.int64)


@pytest.mark.parametrize("core", [*NUMPY_CORE, "numpy.core.umath", "numpy.lib"])
def test_numpy_gives_nothing_else_to_a_checkpoint(with_numbers, core):
    spelled(with_numbers, "records", core)
    with pytest.raises(UserError, match=rf"asks for {core}\.records\."):
        load_state(str(with_numbers), "--path")


class Calls:
    """Pickled as a call of a function, and what is then set."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


ARRAY, SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
OBJECTS = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 63)


def array(*state: Any) -> Calls:
    return Calls(ARRAY, np.ndarray, (0,), b"b", state=(1, *state))


def kind(*state: Any, code: str = "V8") -> Calls:
    return Calls(np.dtype, code, False, False, state=state)


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(np.ndarray, (2,), "O", b"A" * 16),  # numpy takes the bytes for pointers
        Calls(np.ndarray, (1,), "f8", b"A" * 8, -8),  # and reads beside the buffer
        Calls(np.ndarray, (10**6,)),  # and gives memory as it was
        array((2,), np.dtype("O"), False, b"A" * 16),
        array((2,), np.dtype("O"), False, [1, 2]),
        array((2,), kind(*OBJECTS), False, b"A" * 16),
        array((10**12,), np.dtype("f8"), False, b"A" * 16),
        array((2**62, 8), np.dtype("f8"), False, b"A" * 16),
        array((-2,), np.dtype("f8"), False, b"A" * 16),
        array((2,), np.dtype("f8"), False, b"A" * 15),
        array((2.0,), np.dtype("f8"), False, b"A" * 16),
        array((2,), np.dtype("U1"), False, b"A" * 8),
        array((2,), "f8", False, b"A" * 16),
        array(),
        kind(*OBJECTS),
        kind(3, "|", None, None, None, -8, 1, 0),
        kind(3, "x", None, None, None, -1, -1, 0, code="f8"),
        kind(7, code="f8"),
        Calls(np.dtype, "U1000000000"),
        Calls(np.dtype, "O,O"),
        Calls(np.dtype, [("a", "O")]),
        Calls(SCALAR, np.dtype("O"), b"A" * 8),
        Calls(SCALAR, np.dtype("f8"), b"A"),
        Calls(SCALAR, kind(*OBJECTS), b"A" * 8),
    ],
)
def test_an_array_of_a_checkpoint_is_of_plain_numbers(tmp_path, hostile):
    path = tmp_path / "bad.pt"
    torch.save({"extra_state": hostile}, path)
    with pytest.raises(UserError, match=f"{path}: cannot be read as a fairseq checkpoint") as caught:
        load_state(str(path), "--path")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(1).expand(10**9, 10**9), "more numbers than the file has"),
        (torch.zeros(3).as_strided((3, 3), (1, 0)), "more numbers than the file has"),
        (torch.empty(10**9, device="meta"), "a tensor of an odd kind"),
        (torch.eye(3).to_sparse(), "a tensor of an odd kind"),
        (torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8), "a tensor of an odd kind"),
        (torch.zeros(3, dtype=torch.complex64), "a tensor of an odd kind"),
    ],
)
def test_a_tensor_of_a_checkpoint_is_a_plain_one(tmp_path, weights, message):
    path = tmp_path / "bad.pt"
    for place in (
        {"model": {"a": weights}},
        {"model": {}, "last_optimizer_state": {"state": {0: {"exp_avg": weights}}}},
    ):
        torch.save(place, path)
        assert path.stat().st_size < 10_000
        with pytest.raises(UserError, match=f"{path}: cannot be read as a fairseq checkpoint .*{message}"):
            load_state(str(path), "--path")


@pytest.mark.parametrize("place", ["extra_state", "last_optimizer_state", "more"])
def test_lists_that_hold_each_other_many_times(tmp_path, place):
    path = tmp_path / "bad.pt"
    torch.save({"model": {"a": torch.zeros(1)}, place: {"bomb": nested(60)}}, path)
    with pytest.raises(UserError, match=f"--path {path}: ") as caught:
        load_state(str(path), "--path")
    assert len(str(caught.value)) < 1000


def test_a_checkpoint_is_no_bomb(tmp_path):
    """Neither compressed, nor of parts that overlap or claim to be large."""
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save({"model": {"a": torch.zeros(2**18)}}, good)
    with zipfile.ZipFile(good) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert bad.stat().st_size < 2**13
    claiming = tmp_path / "claiming.pt"
    claiming.write_bytes(good.read_bytes().replace(struct.pack("<II", 2**20, 2**20), struct.pack("<II", 2**20, 2**31)))
    assert claiming.read_bytes() != good.read_bytes()
    for path in (bad, claiming):
        with pytest.raises(UserError, match=f"{path}: cannot be read .* it is compressed, or its parts claim to be"):
            load_state(str(path), "--path")


def test_the_directory_of_a_checkpoint_s_archive_is_the_one_that_torch_reads(tmp_path):
    """Python's zipfile takes the directory before the end, torch the one that the end names."""
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save({"model": {"a": torch.zeros(2**18)}}, good)
    packed = io.BytesIO()
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for info in archive.infolist():
            small.writestr(info.filename, archive.read(info))
    data = packed.getvalue()
    start = data.index(b"PK\1\2")
    directory, end = data[start : data.rindex(b"PK\5\6")], data[data.rindex(b"PK\5\6") :]
    harmless = bytearray(directory)
    for at in (match.start() for match in re.finditer(rb"PK\x01\x02", directory)):
        harmless[at + 10 : at + 12] = bytes(2)  # stored
        harmless[at + 20 : at + 28] = struct.pack("<II", 1, 1)
    bad.write_bytes(data[:start] + directory + harmless + end)
    with zipfile.ZipFile(bad) as archive:
        assert sum(info.file_size for info in archive.infolist()) < 100
    assert torch.load(bad)["model"]["a"].numel() == 2**18
    for path, content in ((bad, bad.read_bytes()), (tmp_path / "comment.pt", good.read_bytes() + b"more")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: cannot be read .* the end of the archive is missing or damaged"):
            load_state(str(path), "--path")
        with pytest.raises(UserError, match=f"{path} cannot be read .*the end of the archive is missing or damaged"):
            read_checkpoint(str(path))


def test_a_checkpoint_of_an_old_torch_may_lack_its_weights(tmp_path):
    """Memory that holds something else would become its weights."""
    path = tmp_path / "old.pt"
    torch.save({"model": {"a": torch.zeros(8)}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=f"{path}: cannot be read .* it is no archive of PyTorch 1.6 or newer"):
        load_state(str(path), "--path")


@pytest.mark.parametrize("impl", ["fasta", "cached"])
def test_data_of_a_format_that_runs_a_command_is_refused(corpus, tmp_path, monkeypatch, impl):
    """fairseq runs ``cat NAME | ...`` in a shell for .fasta, and believes the sizes in files of another format."""
    folder = tmp_path / "d;touch ran;"
    folder.mkdir()
    shutil.copy(corpus / "lm" / SOURCE / "dict.txt", folder)
    if impl == "fasta":
        (folder / "test.fasta").write_text(">\nA\n")
    else:
        (folder / "test.idx").write_bytes(b"TNTIDX\0\0" + struct.pack("<QQQQ", 1, 4, 2**40, 2**40))
        (folder / "test.bin").touch()
    monkeypatch.chdir(tmp_path)
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    with pytest.raises(UserError, match=rf"test.bin, .idx: are damaged, or in an old or rare format \({impl}\); make"):
        data_utils.load_indexed_dataset("d;touch ran;/test", dictionary)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_one_weight_has_no_thousand_names(tmp_path):
    """``average`` would make a tensor of each."""
    weight, path = torch.zeros(10_000), tmp_path / "bad.pt"
    torch.save({"model": {f"a{number}": weight for number in range(1000)}}, path)
    with pytest.raises(UserError, match=f"{path}: cannot be read .* its weights are far more than the file has"):
        load_state(str(path), "--path")


def test_a_checkpoint_changes_no_type_of_numpy(with_numbers):
    state = torch.load(with_numbers)
    state["extra_state"]["metrics"] = [kind(3, ">", None, None, None, -1, -1, 0, code="f8"), np.array([0.5], ">f8")]
    torch.save(state, with_numbers)
    read = load_state(str(with_numbers), "--path")["extra_state"]["metrics"][1]
    assert np.dtype("f8").isnative and read.tolist() == [0.5]


def test_an_array_that_was_read_is_written_as_a_plain_one(with_numbers, tmp_path):
    torch.save(load_state(str(with_numbers), "--path")["extra_state"]["metrics"], tmp_path / "again.pt")
    with zipfile.ZipFile(tmp_path / "again.pt") as archive:
        assert b"dual_fairseq" not in archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    counts, *_ = torch.load(tmp_path / "again.pt", weights_only=False)
    assert type(counts) is np.ndarray and counts.tolist() == [[1, 2], [3, 4]]


def test_nothing_turns_weights_only_off():
    sources = [*PLUGIN.rglob("*.py"), *SCRIPTS.rglob("*.sh"), *SCRIPTS.rglob("*.py")]
    assert len(sources) > 30
    for path in sources:
        text = path.read_text()
        assert not re.search(r"weights_only\"?\s*[=:]\s*False", text), path
        assert not re.search(r"\b(pickle|marshal|dill|joblib)\.loads?\(", text), path
        assert "allow_pickle=True" not in text, path


# --- scripts

EVALUATE = [sys.executable, "-m", "dual_fairseq", "evaluate"]


def test_scripts_evaluate_no_text_and_make_no_names_that_can_be_guessed():
    scripts = [*SCRIPTS.rglob("*.sh")]
    assert len(scripts) > 3
    for path in scripts:
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert not re.search(r"(^|[;&|(]|\b(then|do|else)\b)\s*eval\s", code, re.MULTILINE), path
        assert not re.search(r"/tmp\b|\$\$", code), path


@pytest.mark.parametrize("updates", ["PATH[$(touch${IFS}ran)]", None, ["1"]])
def test_a_number_of_updates_that_is_none_is_refused(tmp_path, updates):
    path = tmp_path / "checkpoint_last.pt"
    torch.save({"optimizer_history": [{"num_updates": updates}], "extra_state": {}}, path)
    with pytest.raises(UserError, match=r"checkpoint_last\.pt is not a checkpoint of a training"):
        main(["pipeline.probe", "updates", str(path)])


@pytest.mark.slow
def test_evaluate_refuses_a_hostile_checkpoint_in_one_line(corpus, trained_pair, tmp_path):
    preprocessed(corpus, tmp_path / "data", "none")
    bad = tmp_path / "bad.pt"
    checkpoint_of("in_a_good_one", bad, tmp_path / "ran", trained_pair[0] / "checkpoint_best.pt")
    command = [*EVALUATE, str(tmp_path / "data"), str(bad), "--cpu", "--output", str(tmp_path / "out")]
    done = run_command(command, env=ENVIRONMENT)
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
    (line,) = done.stderr.strip().splitlines()
    assert (
        line.startswith(f"dual_fairseq: error: --path {bad}: ") and "a file that could run code is not loaded" in line
    )
    assert not (tmp_path / "out" / "scores.json").exists()


ODD_NAMES = ["-a 'quote', \"two\"; touch pwned; * ? [a] $(touch pwned)", "`touch pwned` & \\ | > < # {a,b} ~ !"]


@pytest.mark.parametrize("name", [ODD_NAMES[0], pytest.param(ODD_NAMES[1], marks=pytest.mark.slow)], ids=["one", "two"])
def test_any_name_of_a_file_is_a_name(corpus, trained_pair, tmp_path, name):
    """As the data's folder, the checkpoint and the folder of results of one script that hands them all on."""
    preprocessed(corpus, tmp_path / name, "none")
    folder = tmp_path / f"{name} models"
    folder.mkdir()
    shutil.copy(trained_pair[0] / "checkpoint_best.pt", folder / f"{name}.pt")
    operands = [f"{name}", f"{name} models/{name}.pt"]
    arguments = ["--cpu", "--beam", "1", "--output", f"{name} results", "--", "--max-len-b", "5"]
    # operands that begin with a dash are told from options as everywhere
    command = [*EVALUATE, *(f"./{o}" if o.startswith("-") else o for o in operands), *arguments]
    done = run_command(command, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{name} results" / "scores.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name} models", f"{name} results"])


LANGUAGES = ["x/y", "x y", "-x", "x'y", "$(touch pwned)", "../xx", "", "x;y"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_that_is_no_code_is_refused_by_the_scripts(corpus, tmp_path, language):
    (tmp_path / "preprocess.json").write_text(
        f'{{"source": "{language}", "target": "{TARGET}", "tokenizer": "none", "subword": "bpe"}}'
    )
    commands = [
        [SCRIPTS / "train_dual.sh", tmp_path, tmp_path / "run"],
        [*EVALUATE, tmp_path, tmp_path / "preprocess.json"],
        [
            SCRIPTS / "preprocess.sh",
            f"-s={language}",
            "-t",
            TARGET,
            "--train",
            "a",
            "--valid",
            "b",
            "--dest",
            tmp_path / "out",
        ],
    ]
    for words in commands:
        command = list(map(str, words))
        done = run_command(command, cwd=tmp_path, env=ENVIRONMENT)
        assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert ": error: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["preprocess.json"]
