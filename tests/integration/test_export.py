"""Single models out of a pair and into one, averaged checkpoints and ensembles, against the fairseq that users have."""

from __future__ import annotations

import json
import math
import os
import pickle
import pickletools
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ctranslate2
import pytest
import torch
from helpers import PLUGIN, ROOT, SOURCE, TARGET, TINY, Run, fairseq_here, parameters, run_command

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair import average, export, import_pair
from dual_fairseq.pair.load import load_pair
from dual_fairseq.plugin import finished
from dual_fairseq.plugin.checkpoint import load_state
from dual_fairseq.plugin.model import of_direction

FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"
DIRECTIONS = (FORWARD, REVERSE)
MODELS = {
    "transformer": "--arch transformer --encoder-layers 1 --decoder-layers 2 --encoder-embed-dim 32 "
    "--decoder-embed-dim 32 --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --share-decoder-input-output-embed".split(),
    "lstm": TINY["lstm"],
    "fconv": "--arch fconv --encoder-layers [(16,3)] --decoder-layers [(16,3)] --encoder-embed-dim 16 "
    "--decoder-embed-dim 16 --decoder-out-embed-dim 16".split(),
}
# Who translates which way by fairseq-generate, as a pair and as a single model.
TRANSLATED = [("transformer", FORWARD), ("transformer", REVERSE), ("lstm", FORWARD), ("fconv", REVERSE)]
BEAM = ("--beam", 3, "--max-len-b", 20, "--batch-size", 8, "--gen-subset", "test", "--cpu")

# Several commands of a fairseq without the plugin in one process, because its start is what a tiny run costs.
DRIVER = """
import json, sys
from fairseq_cli import generate, train, validate
for name, *argv in json.load(sys.stdin):
    sys.argv = ["fairseq-" + name, *argv]
    print("###", name, flush=True)
    if name == "ctranslate2":
        from ctranslate2.converters import FairseqConverter
        model, data, quantization, output = argv
        FairseqConverter(model, data).convert(output, quantization=quantization)
    elif name == "hub":
        from fairseq.models.transformer import TransformerModel
        folder, files, sentences, output = argv
        model = TransformerModel.from_pretrained(folder, checkpoint_file=files)
        with open(sentences) as text, open(output, "w") as out:
            json.dump(model.translate(text.read().splitlines(), beam=3), out)
    else:
        {"generate": generate, "train": train, "validate": validate}[name].cli_main()
print("plugin loaded:", any(module.split(".")[0] == "dual_fairseq" for module in sys.modules))
"""


def commands(*lines: tuple[object, ...]) -> Run:
    """Run commands as someone who has fairseq and not the plugin."""
    lines = tuple(
        (*line, "--num-workers", 0) if line[0] in ("generate", "train", "validate") else line for line in lines
    )
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([[str(word) for word in line] for line in lines]),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
    )
    run = Run(done.returncode, done.stdout + done.stderr)
    assert run.returncode == 0, run.output[-4000:]
    assert "plugin loaded: False" in run.output
    return run


def pair_command(name: str, data: Path, direction: str, *args: object) -> Run:
    source, target = direction.split("-")
    return fairseq_here(
        name, data, "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target, *args
    )


def generated(folder: Path) -> list[str]:
    """Hypotheses, their scores and those of their tokens, as ``fairseq-generate --results-path`` wrote them."""
    lines = (folder / "generate-test.txt").read_text().splitlines()
    lines = [line for line in lines if line.startswith(("H-", "P-"))]
    assert len(lines) == 2 * 16
    return lines


def hypotheses(folder: Path) -> dict[int, list[str]]:
    rows = (line.split("\t") for line in generated(folder) if line.startswith("H-"))
    return {int(row[0][2:]): row[2].split() for row in rows}


def token_scores(folder: Path) -> dict[int, list[float]]:
    """log2 P of each token of a hypothesis, ``</s>`` last."""
    rows = (line.split("\t") for line in generated(folder) if line.startswith("P-"))
    return {int(row[0][2:]): [float(score) for score in row[1].split()] for row in rows}


@pytest.fixture(scope="module")
def data(corpus) -> Path:
    return corpus / "dual"


@pytest.fixture(scope="module")
def pairs(data, tmp_path_factory) -> Path:
    """A pair of each arch, ``<arch>/checkpoint_last.pt``; ``<arch>/<direction>/`` and ``ensemble/``: translations."""
    root = tmp_path_factory.mktemp("pairs")
    length, interval = {"transformer": 90, "lstm": 6, "fconv": 6}, {"transformer": 25, "lstm": 1, "fconv": 9}
    for arch, model in MODELS.items():
        pair_command(
            "train", data, FORWARD, *model, "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--src-lm",
            root / "lm.pt", "--label-smoothing", 0.1, "--optimizer", "adam", "--lr", 0.005, "--max-tokens", 1000,
            "--max-update", length[arch], "--save-dir", root / arch, "--cpu", "--log-format", "json",
            "--save-interval", interval[arch], "--disable-validation",
        )  # fmt: skip
    for arch, direction in TRANSLATED:
        path = ("--path", root / arch / "checkpoint_last.pt", "--results-path", root / arch / direction)
        pair_command("generate", data, direction, *path, *BEAM)
    for direction in DIRECTIONS:
        files = f"{root / 'transformer' / 'checkpoint_last.pt'}:{halfway(root)}"
        ensemble = ("--path", files, "--results-path", root / "ensemble" / direction)
        pair_command("generate", data, direction, *ensemble, *BEAM)
    return root


@pytest.fixture(scope="module")
def exports(pairs, data) -> Path:
    """Both directions of each pair, ``<arch>/export/<direction>.pt``."""
    for arch in MODELS:
        for direction in DIRECTIONS:
            output = pairs / arch / "export" / f"{direction}.pt"
            main(["export", str(pairs / arch / "checkpoint_last.pt"), "--direction", direction, "-o", str(output)])
    return pairs


@pytest.fixture(scope="module")
def stock(exports, data, tmp_path_factory) -> Path:
    """What fairseq without the plugin and CTranslate2 make of the exported files."""
    root = tmp_path_factory.mktemp("stock")
    lines: list[tuple[object, ...]] = []
    for arch, direction in TRANSLATED:
        path = ("--path", exports / arch / "export" / f"{direction}.pt", "--results-path", root / arch / direction)
        lines.append(("generate", data, *direction_options(direction), *path, *BEAM))
    for direction in DIRECTIONS:
        single = exports / "transformer" / "export" / f"{direction}.pt"
        folder, sentences = single.parent, data.parent / "text" / f"test.{direction.split('-')[0]}"
        lines.append(("hub", folder, single.name, sentences, root / f"hub.{direction}.json"))
        for quantization in ("float32", "int8") if direction == FORWARD else ("float32",):
            lines.append(("ctranslate2", single, folder, quantization, root / f"ct2.{quantization}.{direction}"))
    twin = exports / "transformer" / "export" / f"{FORWARD}.pt"
    middle = root / "middle" / f"{FORWARD}.pt"
    export.export(halfway(exports), FORWARD, middle)
    ensemble = ("--path", f"{twin}:{middle}", "--results-path", root / "ensemble")
    lines.append(("generate", data, *direction_options(FORWARD), *ensemble, *BEAM))
    commands(*lines)
    return root


@pytest.fixture(scope="module")
def more_of_stock(exports, data, tmp_path_factory) -> tuple[Path, Run]:
    """As ``stock``: a validation, an average, and two models trained without the plugin."""
    root = tmp_path_factory.mktemp("more")
    lines: list[tuple[object, ...]] = []
    for direction in DIRECTIONS:
        single = exports / "transformer" / "export" / f"{direction}.pt"
        looks = ("--task", "translation", "--cpu", "--log-format", "json", "--batch-size", 8)
        lines.append(("validate", data, *direction_options(direction), "--path", single, *looks))
        lines.append(
            (
                "train", data, *direction_options(direction), *MODELS["transformer"], "--optimizer", "adam", "--lr",
                0.01, "--max-update", 8, "--save-dir", root / "trained" / direction, "--cpu", "--max-tokens", 1000,
                "--no-epoch-checkpoints", "--disable-validation", "--dropout", 0.2 if direction == FORWARD else 0.1,
            )
        )  # fmt: skip
    middle, means = root / "middle" / f"{FORWARD}.pt", root / "mean.pt"
    export.export(halfway(exports), FORWARD, middle)
    twin = exports / "transformer" / "export" / f"{FORWARD}.pt"
    finished.write_checkpoint(average.average([twin, middle]), means)
    results = ("--path", means, "--results-path", root / "mean", *BEAM)
    lines.append(("generate", data, *direction_options(FORWARD), *results))
    return root, commands(*lines)


def halfway(pairs: Path) -> Path:
    """An earlier checkpoint of the transformer's run."""
    return pairs / "transformer" / "checkpoint25.pt"


def direction_options(direction: str) -> tuple[str, ...]:
    source, target = direction.split("-")
    return ("-s", source, "-t", target)


@pytest.fixture(scope="module")
def imported(more_of_stock, exports, data, tmp_path_factory) -> tuple[Path, Run]:
    """Pairs made of single models, and averages, in the hands of fairseq with the plugin."""
    trained, root = more_of_stock[0] / "trained", tmp_path_factory.mktemp("imported")
    singles = [str(trained / direction / "checkpoint_last.pt") for direction in DIRECTIONS]
    main(
        [
            "import",
            *["--src2tgt", singles[0], "--tgt2src", singles[1], "--data", str(data), "-o", str(root / "pair.pt")],
        ]
    )
    last, middle = exports / "transformer" / "checkpoint_last.pt", halfway(exports)
    main(["average", "--inputs", str(last), str(middle), "--output", str(root / "mean.pt")])
    for direction in DIRECTIONS:
        for name, path in (("pair", root / "pair.pt"), ("mean", root / "mean.pt")):
            results = ("--path", path, "--results-path", root / name / direction)
            pair_command("generate", data, direction, *results, *BEAM)
    # each direction alone, as trained: of plain checkpoints, which stock fairseq does not load under this PyTorch
    for direction, single in zip(DIRECTIONS, singles, strict=True):
        path = ("--path", single, "--results-path", root / "single" / direction)
        fairseq_here("generate", data, "--user-dir", PLUGIN, *direction_options(direction), *path, *BEAM)
    training = (
        *MODELS["transformer"], "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--cpu", "--max-tokens", 1000,
        "--no-epoch-checkpoints", "--disable-validation", "--log-format", "json",
    )  # fmt: skip
    still = ("--optimizer", "sgd", "--lr", 0, "--max-update", 1)
    resets = [f"--reset-{what}" for what in ("optimizer", "dataloader", "meters", "lr-scheduler")]
    goes_on = ("--optimizer", "adam", "--lr", 0.005, "--label-smoothing", 0.1, "--max-update", 92)
    for name, options in {
        "finetune": (*still, "--finetune-from-model", root / "pair.pt"),
        "restore": (*still, "--restore-file", root / "pair.pt", *resets),
        "resume": (*goes_on, "--restore-file", root / "mean.pt"),
    }.items():
        pair_command("train", data, FORWARD, *training, *options, "--save-dir", root / name)
    looks = ("--cpu", "--log-format", "json", "--batch-size", 8)
    runs = [pair_command("validate", data, FORWARD, "--path", path, *looks) for path in (root / "pair.pt", last)]
    return root, Run(0, "".join(run.output for run in runs))


# --- export


@pytest.mark.parametrize(("arch", "direction"), TRANSLATED)
def test_stock_fairseq_translates_as_the_pair_does(pairs, stock, arch, direction):
    """Hypotheses, their scores and every token's, to the last printed digit."""
    assert generated(stock / arch / direction) == generated(pairs / arch / direction)


def test_the_directions_differ(pairs):
    first, second = (hypotheses(pairs / "transformer" / direction) for direction in DIRECTIONS)
    assert all(word[0] == "t" for words in first.values() for word in words)
    assert all(word[0] == "s" for words in second.values() for word in words)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_from_pretrained_finds_all_it_needs_in_the_folder(pairs, stock, direction):
    translations = json.loads((stock / f"hub.{direction}.json").read_text())
    expected = hypotheses(pairs / "transformer" / direction)
    assert [sentence.split() for sentence in translations] == [expected[i] for i in range(16)]


@pytest.mark.slow
def test_stock_validation_measures_the_pairs_nll(more_of_stock, imported):
    alone = [record["valid_nll_loss"] for record in more_of_stock[1].logged("valid")]
    pair = imported[1].logged("valid")[-1]
    assert alone == [pytest.approx(pair[f"valid_nll_loss_{direction}"], abs=0.0011) for direction in DIRECTIONS]


def pickled(path: Path) -> tuple[set[str], list[str]]:
    """The classes and functions that unpickling a checkpoint asks for, and all the strings in it."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        opcodes = list(pickletools.genops(archive.read(name)))
    strings = [argument for opcode, argument, _ in opcodes if "UNICODE" in opcode.name]
    return {argument for opcode, argument, _ in opcodes if "GLOBAL" in opcode.name or opcode.name == "INST"}, strings


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("arch", MODELS)
def test_an_exported_file_holds_tensors_and_built_in_types(exports, arch, direction):
    classes, strings = pickled(exports / arch / "export" / f"{direction}.pt")
    assert classes == {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
    assert not any("/" in string or "dual" in string or "_lm" in string for string in strings)


def test_what_is_kept_and_what_is_not(exports, pairs):
    pair = load_state(str(pairs / "lstm" / "checkpoint_last.pt"), "--path")
    assert pair["last_optimizer_state"] and pair["cfg"].task.src_lm, "or there would be nothing to leave out"
    for direction in DIRECTIONS:
        single = load_state(str(exports / "lstm" / "export" / f"{direction}.pt"), "--path")
        source, target = direction.split("-")
        task = single["cfg"].task
        assert (task._name, task.source_lang, task.target_lang) == ("translation", source, target)
        assert task.left_pad_source and task.max_source_positions == 1024 and not task.eval_bleu
        assert not hasattr(task, "src_lm")
        assert single["last_optimizer_state"] is None
        assert single["task_state"].keys() == {"dictionaries"} and len(single["task_state"]["dictionaries"]) == 2
        assert single["optimizer_history"][-1]["num_updates"] == 6
        weights = of_direction(pair["model"], direction)
        assert single["model"].keys() == weights.keys() != set()
        assert all(torch.equal(single["model"][key], weights[key]) for key in weights)


def test_word_vectors_are_in_the_weights_and_their_files_are_not_asked_for(pairs, data, tmp_path):
    """fairseq's lstm cannot even be built with frozen embeddings and without their file."""
    state = torch.load(pairs / "lstm" / "checkpoint_last.pt")
    model = state["cfg"]["model"]
    model.encoder_embed_path, model.decoder_embed_path = "/gone/vectors.xx", "/gone/vectors.yy"
    model.encoder_freeze_embed = model.decoder_freeze_embed = True
    torch.save(state, tmp_path / "pair.pt")
    files = [tmp_path / f"{direction}.pt" for direction in DIRECTIONS]
    for direction, file in zip(DIRECTIONS, files, strict=True):
        export.export(tmp_path / "pair.pt", direction, file)  # which builds the model
        assert not any("/" in string for string in pickled(file)[1])
        args = torch.load(file)["args"]
        assert (args.encoder_embed_path, args.decoder_freeze_embed) == (None, False)
    back, remarks = import_pair.import_pair(*files, data)
    assert not remarks
    assert all(torch.equal(back["model"][key], value) for key, value in state["model"].items())


def test_the_command_and_the_dictionaries(pairs, data, tmp_path):
    """The command as it is documented, in a folder of its own and with relative names."""
    shutil.copy(pairs / "transformer" / "checkpoint_last.pt", tmp_path / "dual.pt")
    argv = [sys.executable, "-m", "dual_fairseq", "export", "dual.pt", "--direction", REVERSE, "-o", f"{REVERSE}.pt"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = run_command(argv, cwd=tmp_path, env=env)
    names = [f"{REVERSE}.pt", f"dict.{TARGET}.txt", f"dict.{SOURCE}.txt"]
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"wrote {name}" for name in names]), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["dual.pt", *names])
    for language in (SOURCE, TARGET):
        name = f"dict.{language}.txt"
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_dictionaries_that_are_there_already_stay(pairs, data, tmp_path, capsys):
    pair = str(pairs / "transformer" / "checkpoint_last.pt")
    for direction, count in ((FORWARD, 3), (REVERSE, 1)):
        written, missing = export.export(pair, direction, tmp_path / f"{direction}.pt")
        assert len(written) == count and not missing
    other = tmp_path / f"dict.{SOURCE}.txt"
    other.write_text("another 1\n")
    with pytest.raises(UserError, match="differs from the dictionary"):
        export.export(pair, FORWARD, tmp_path / "new.pt")
    assert other.read_text() == "another 1\n" and not (tmp_path / "new.pt").exists()


def without_data(pair: Path, folder: Path) -> Path:
    """The pair as on a machine that does not have the data it was trained on."""
    state = torch.load(pair)
    state["cfg"]["task"]["data"] = str(folder / "gone")
    torch.save(state, folder / "pair.pt")
    return folder / "pair.pt"


def test_without_the_data_the_dictionaries_are_missed_or_given(pairs, data, tmp_path, capsys):
    pair = without_data(pairs / "transformer" / "checkpoint_last.pt", tmp_path)
    output = tmp_path / "out" / "single.pt"
    main(["export", str(pair), "--direction", FORWARD, "-o", str(output)])
    printed = capsys.readouterr()
    assert f"dict.{SOURCE}.txt and dict.{TARGET}.txt not found" in printed.out
    assert f"{SOURCE} -> {TARGET} with {pair}\n" in printed.err
    assert [path.name for path in output.parent.iterdir()] == ["single.pt"]
    main(["export", str(pair), "--direction", FORWARD, "-o", str(output), "--data", str(data)])
    assert "not found" not in capsys.readouterr().out
    assert len(list(output.parent.iterdir())) == 3


def test_half_precision_halves_the_file_and_keeps_tied_weights_tied(pairs, tmp_path):
    pair = pairs / "transformer" / "checkpoint_last.pt"
    weights = of_direction(load_state(str(pair), "--path")["model"], FORWARD)
    for half, name in ((False, "full.pt"), (True, "half.pt")):
        export.export(pair, FORWARD, tmp_path / name, half=half)
    halves = torch.load(tmp_path / "half.pt", weights_only=True)["model"]
    assert all(halves[key].dtype == torch.half and torch.equal(halves[key], weights[key].half()) for key in weights)
    table, projection = (halves[f"decoder.{name}.weight"] for name in ("embed_tokens", "output_projection"))
    assert table.data_ptr() == projection.data_ptr()
    numbers = sum(tensor.numel() for tensor in {t.data_ptr(): t for t in halves.values()}.values())
    sizes = {name: (tmp_path / name).stat().st_size for name in ("full.pt", "half.pt")}
    assert sizes["full.pt"] - sizes["half.pt"] == pytest.approx(2 * numbers, rel=0.1)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_nothing_in_a_hostile_file_runs(tmp_path):
    for name, content in (("bare.pt", None), ("model.pt", {"model": {}, "args": None})):
        path = tmp_path / name
        if content is None:
            path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
        else:
            torch.save({**content, "cfg": Hostile(tmp_path / "ran")}, path)
        for run in (
            lambda path=path: export.export(path, FORWARD, tmp_path / "out.pt"),
            lambda path=path: average.average([path, path]),
            lambda path=path: import_pair.import_pair(path, path, tmp_path),
        ):
            with pytest.raises(UserError, match="cannot be read as a fairseq checkpoint"):
                run()
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(
    "case, message",
    {
        "direction": (f"--direction xx-zz: .* holds {FORWARD} and {REVERSE}"),
        "single": "holds a single model already",
        "folder": "name the checkpoint to write, as in ",
        "no suffix": "new: name the checkpoint to write, as in .*new/",
        "itself": "is the same file as the input",
        "data": f"has no dict.{SOURCE}.txt",
        "order": "another dictionary of xx",
        "size": "another dictionary of xx",
        "old": "do not fit the dictionaries",
    }.items(),
)
def test_refusals_of_export(exports, data, tmp_path, case, message):
    pair = exports / "transformer" / "checkpoint_last.pt"
    direction, output, folder = FORWARD, tmp_path / "out.pt", None
    if case == "direction":
        direction = "xx-zz"
    elif case == "single":
        pair = pair.parent / "export" / f"{FORWARD}.pt"
    elif case in ("folder", "no suffix"):
        output = tmp_path if case == "folder" else tmp_path / "new"
    elif case == "itself":
        output = pair
    else:
        folder = tmp_path / "data"
        folder.mkdir()
        for language in (SOURCE, TARGET) if case != "data" else ():
            lines = (data / f"dict.{language}.txt").read_text().splitlines()
            lines = lines[::-1] if case == "order" else lines[:-2]
            (folder / f"dict.{language}.txt").write_text("".join(line + "\n" for line in lines))
    if case == "old":
        pair = without_data(pair, tmp_path)  # nothing to compare with but the weights
        state = torch.load(pair)
        state["task_state"].pop("dictionaries")
        torch.save(state, pair)
    with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
        export.export(pair, direction, output, folder)
    assert not (tmp_path / "out.pt").exists()


# --- CTranslate2


def ctranslate2_model(stock, quantization: str, direction: str) -> ctranslate2.Translator:
    return ctranslate2.Translator(
        str(stock / f"ct2.{quantization}.{direction}"), device="cpu", intra_threads=1, compute_type=quantization
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ctranslate2_translates_as_the_pair_does(pairs, stock, data, direction):
    expected, scores = (read(pairs / "transformer" / direction) for read in (hypotheses, token_scores))
    source = [line.split() for line in (data.parent / f"text/test.{direction[:2]}").read_text().splitlines()]
    model = ctranslate2_model(stock, "float32", direction)
    found = [result.hypotheses[0] for result in model.translate_batch(source, beam_size=3)]
    assert found == [expected[i] for i in range(16)]
    for i, scored in enumerate(model.score_batch(source, found)):
        assert [p / math.log(2) for p in scored.log_probs] == pytest.approx(scores[i], abs=5e-4)


def test_ctranslate2_in_8_bits_comes_close(stock, data):
    """By the NLL of the references: which translation is best depends on the near ties of so small a pair."""
    source, references = ([line.split() for line in (data.parent / f"text/test.{language}").read_text().splitlines()]
                          for language in (SOURCE, TARGET))  # fmt: skip

    def nll(quantization: str) -> float:
        scored = ctranslate2_model(stock, quantization, FORWARD).score_batch(source, references)
        tokens = [log_prob for sentence in scored for log_prob in sentence.log_probs]
        return -sum(tokens) / len(tokens) / math.log(2)

    assert 0 < abs(nll("int8") - nll("float32")) < 0.15  # bits a token; 0 would mean that nothing was quantized


# --- averages and ensembles


def test_the_average_of_a_checkpoint_with_itself_is_the_checkpoint(pairs):
    path = pairs / "lstm" / "checkpoint_last.pt"
    mean, state = average.average([path, path, path]), load_state(str(path), "--path")
    assert list(mean["model"]) == list(state["model"])
    assert all(torch.equal(mean["model"][key], state["model"][key]) for key in state["model"])


def test_an_average_is_the_mean_of_the_weights(pairs):
    paths = [pairs / "lstm" / f"checkpoint{epoch}.pt" for epoch in (3, 1, 2)]
    weights = [load_state(str(path), "--path")["model"] for path in paths]
    mean = average.average(paths)
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for key in weights[0]:
        exact = torch.stack([w[key].double() for w in weights]).mean(dim=0)
        assert torch.equal(mean["model"][key], exact.float())
    assert mean["optimizer_history"] == load_state(str(paths[0]), "--path")["optimizer_history"]


def test_halves_and_integers_are_averaged_as_fairseq_does(pairs, tmp_path):
    state = torch.load(pairs / "lstm" / "checkpoint_last.pt")
    for name, half, integer in (("a.pt", 1.0, 3), ("b.pt", 2.0**-11, 4)):
        state["model"] = {"half": torch.tensor([half]).half(), "integer": torch.tensor([integer])}
        torch.save(state, tmp_path / name)
    mean = average.average([tmp_path / "a.pt", tmp_path / "b.pt"])["model"]
    # float32, where the halves' own sum would have lost the smaller
    assert torch.equal(mean["half"], torch.tensor([0.5 + 2.0**-12])) and torch.equal(mean["integer"], torch.tensor([3]))


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_averaged_pair_translates_and_is_exported(imported, direction, tmp_path):
    mean = imported[0] / "mean.pt"
    pair, _ = load_pair(mean, device="cpu")
    expected = parameters(imported[0], "mean.pt")
    assert all(torch.equal(value, expected[key]) for key, value in pair.state_dict().items())
    assert hypotheses(imported[0] / "mean" / direction).keys() == set(range(16))
    export.export(mean, direction, tmp_path / "single.pt")
    single = parameters(tmp_path, "single.pt")
    assert all(torch.equal(value, expected[f"models.{direction}.{key}"]) for key, value in single.items())


@pytest.mark.slow
def test_averaging_goes_before_export_or_after(more_of_stock, imported):
    """An average of exported files is one that stock fairseq loads, and it is the averaged pair's direction."""
    assert generated(more_of_stock[0] / "mean") == generated(imported[0] / "mean" / FORWARD)


@pytest.mark.slow
def test_a_run_goes_on_from_an_average(imported):
    state = load_state(str(imported[0] / "resume" / "checkpoint_last.pt"), "--path")
    assert state["optimizer_history"][-1]["num_updates"] == 92  # 90 of them before the average
    before, after = parameters(imported[0], "mean.pt"), state["model"]
    moved = max((before[key] - after[key]).abs().max().item() for key in after)
    assert 0 < moved < 0.05


def test_the_averaging_command_takes_a_folder(pairs, tmp_path, capsys):
    folder, output = pairs / "lstm", tmp_path / "new" / "mean.pt"
    main(["average", "--inputs", str(folder), "--num-epoch-checkpoints", "2", "--checkpoint-upper-bound", "3",
                  "--output", str(output)])  # fmt: skip
    files = [str(folder / f"checkpoint{epoch}.pt") for epoch in (3, 2)]
    assert capsys.readouterr().out.splitlines() == [*(f"averaging {file}" for file in files), f"wrote {output}"]
    expected = average.average(files)["model"]
    assert all(torch.equal(value, expected[key]) for key, value in parameters(output.parent, "mean.pt").items())


def test_models_that_cannot_be_averaged(exports, pairs, tmp_path):
    first = pairs / "transformer" / "checkpoint_last.pt"
    with pytest.raises(UserError, match="is not the same model as"):
        average.average([first, pairs / "lstm" / "checkpoint_last.pt"])
    with pytest.raises(UserError, match="are in only one of them"):
        average.average([first, pairs / "transformer" / "export" / f"{FORWARD}.pt"])
    state = torch.load(first)
    state["cfg"]["model"].decoder_attention_heads = 4
    torch.save(state, tmp_path / "heads.pt")
    with pytest.raises(UserError, match="--decoder-attention-heads 4, not 2"):
        average.average([first, tmp_path / "heads.pt"])
    state["model"] = {key: value[..., :1] for key, value in state["model"].items()}
    torch.save(state, tmp_path / "shapes.pt")
    with pytest.raises(UserError, match="have another shape"):
        average.average([first, tmp_path / "shapes.pt"])
    with pytest.raises(UserError, match="is a folder; choose its checkpoints"):
        main(["average", "--inputs", str(pairs), "-o", str(tmp_path / "average.pt")])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_ensemble_of_pairs_averages_the_probabilities_of_that_direction(pairs, data, direction):
    expected, scores = (read(pairs / "ensemble" / direction) for read in (hypotheses, token_scores))
    files = [pairs / "transformer" / "checkpoint_last.pt", halfway(pairs)]
    source, target = direction.split("-")
    loaded = [load_pair(file, source=source, target=target, device="cpu") for file in files]
    task = loaded[0][1]
    sentences = (data.parent / f"text/test.{source}").read_text().splitlines()
    alone = []
    for i, sentence in enumerate(sentences):
        src = task.source_dictionary.encode_line(sentence, add_if_not_exist=False).long()[None]
        out = task.target_dictionary.encode_line(" ".join(expected[i]), add_if_not_exist=False).long()
        previous = torch.cat([out[-1:], out[:-1]])[None]
        with torch.no_grad():
            each = [
                torch.softmax(pair.models[direction](src, torch.tensor([src.size(1)]), previous)[0][0], dim=-1)
                for pair, _ in loaded
            ]
        p, *single = (probabilities.gather(-1, out[:, None])[:, 0] for probabilities in (sum(each) / 2, *each))
        assert p.log2().tolist() == pytest.approx(scores[i], abs=3e-4)
        alone.append(max((q.log2() - p.log2()).abs().max().item() for q in single))
    assert max(alone) > 0.01, "the members must differ, or any of them would pass for the ensemble"


def test_an_ensemble_of_exported_models_is_that_of_the_pairs(stock, pairs):
    assert generated(stock / "ensemble") == generated(pairs / "ensemble" / FORWARD)


# --- import


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_imported_pair_translates_as_its_models_do(imported, direction):
    assert generated(imported[0] / "pair" / direction) == generated(imported[0] / "single" / direction)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["finetune", "restore"])
def test_training_goes_on_from_an_imported_pair(imported, how):
    """At learning rate 0 a run ends with the weights that it was given."""
    given, kept = parameters(imported[0], "pair.pt"), parameters(imported[0] / how)
    assert given.keys() == kept.keys() and all(torch.equal(given[key], kept[key]) for key in given)


@pytest.mark.slow
def test_an_imported_pair_validates_without_language_models(imported):
    record = imported[1].logged("valid")[0]
    assert all(math.isfinite(record[f"valid_nll_loss_{direction}"]) for direction in DIRECTIONS)
    assert "valid_dual_lambda" not in record


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_trained_model_comes_out_as_it_went_in(more_of_stock, imported, direction, tmp_path):
    export.export(imported[0] / "pair.pt", direction, tmp_path / "single.pt")
    given = load_state(str(more_of_stock[0] / "trained" / direction / "checkpoint_last.pt"), "--path")
    back = load_state(str(tmp_path / "single.pt"), "--path")
    assert given["model"].keys() == back["model"].keys()
    assert all(torch.equal(given["model"][key], back["model"][key]) for key in given["model"])


@pytest.mark.parametrize("arch", MODELS)
def test_an_exported_pair_comes_in_as_it_went_out(exports, data, tmp_path, arch, capsys):
    singles = [str(exports / arch / "export" / f"{direction}.pt") for direction in DIRECTIONS]
    output = tmp_path / "pair.pt"
    main(["import", "--src2tgt", singles[0], "--tgt2src", singles[1], "--data", str(data), "-o", str(output)])
    assert capsys.readouterr().out.splitlines() == [f"wrote {output}"]
    given, back = (load_state(str(path), "--path") for path in (exports / arch / "checkpoint_last.pt", output))
    assert given["model"].keys() == back["model"].keys()
    assert all(torch.equal(given["model"][key], back["model"][key]) for key in given["model"])
    assert finished.arch_options(given["cfg"].model) == finished.arch_options(back["cfg"].model)
    assert finished.translation_options(given["cfg"].task) == finished.translation_options(back["cfg"].task)
    assert back["cfg"].criterion.label_smoothing == 0.1 and back["cfg"].criterion.dual_lambda == 0


def test_options_that_matter_in_training_only_may_differ(exports, data, tmp_path):
    singles = [exports / "transformer" / "export" / f"{direction}.pt" for direction in DIRECTIONS]
    state = torch.load(singles[0])
    state["args"].dropout = 0.2
    torch.save(state, tmp_path / "single.pt")
    _, remarks = import_pair.import_pair(tmp_path / "single.pt", singles[1], data)
    assert len(remarks) == 1 and "--dropout 0.1, and --src2tgt with 0.2, which the pair records" in remarks[0]


@pytest.mark.parametrize(
    "case, message",
    {
        "same": f"translates {FORWARD}; the reverse of --src2tgt",
        "pair": "holds a pair; write one direction",
        "arch": "has --arch lstm, but --src2tgt has --arch transformer",
        "heads": "was trained with --decoder-attention-heads 4, and --src2tgt with 2",
        "layers": "was trained with --encoder-layers 3, and --src2tgt with 1",
        "task": "is a checkpoint of --task denoising",
        "size": "was trained with .*dict.xx.txt",
        "data": "there is no such data directory",
    }.items(),
)
def test_refusals_of_import(exports, data, tmp_path, case, message):
    singles = [exports / "transformer" / "export" / f"{direction}.pt" for direction in DIRECTIONS]
    folder = data
    if case == "same":
        singles[1] = singles[0]
    elif case == "pair":
        singles[0] = exports / "transformer" / "checkpoint_last.pt"
    elif case == "arch":
        singles[1] = exports / "lstm" / "export" / f"{REVERSE}.pt"
    elif case in ("heads", "layers", "task"):
        state = torch.load(singles[1], weights_only=True)
        name, value = {
            "heads": ("decoder_attention_heads", 4),
            "layers": ("encoder_layers", 3),
            "task": ("task", "denoising"),
        }[case]
        setattr(state["args"], name, value)
        singles[1] = tmp_path / "changed.pt"
        torch.save(state, singles[1])
    elif case == "size":
        folder = tmp_path / "data"
        folder.mkdir()
        for language in (SOURCE, TARGET):
            lines = (data / f"dict.{language}.txt").read_text().splitlines(keepends=True)
            (folder / f"dict.{language}.txt").write_text("".join(lines[:-2]))
    else:
        folder = tmp_path / "gone"
    with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
        import_pair.import_pair(*singles, folder)
