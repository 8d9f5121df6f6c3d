"""Bad input ends in one line that names the file or option and the mend, before any training, without a traceback."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import load_indexed_dataset
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train
from helpers import PLUGIN, SOURCE, TARGET, TINY, binarize, fairseq_here, train, train_by_two

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.score_cache import cache_key


@pytest.fixture
def command(monkeypatch, corpus, tmp_path):
    """Run fairseq-train's own entry point in this process (start-up is most of a run) and return its refusal."""

    def run(*options: object, data: Path | None = None, model: str = "transformer", languages=(SOURCE, TARGET)) -> str:
        argv = [
            "fairseq-train", data or corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation",
            "-s", languages[0], "-t", languages[1], *TINY.get(model, model.split()), "--save-dir", tmp_path / "save",
            "--criterion", "dual_cross_entropy", "--cpu", "--max-tokens", 300, "--max-update", 1, "--lr", 0.1, *options,
        ]  # fmt: skip
        return refusal(monkeypatch, fairseq_train, argv)

    yield run
    assert not (tmp_path / "save").exists() or not list((tmp_path / "save").iterdir()), "it trained all the same"


def refusal(monkeypatch, module, argv) -> str:
    monkeypatch.setattr(sys, "argv", [str(a) for a in argv])
    with pytest.raises(UserError) as caught:
        module.cli_main()
    message = str(caught.value.code)
    assert "\n" not in message
    return message


# --- language models


def rewrite(path: Path, destination: Path, change) -> Path:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, destination)
    return destination


@pytest.fixture
def bad_lm(corpus, language_models, tmp_path, trained_pair):
    good = language_models[SOURCE]

    def make(kind: str) -> Path:
        path = tmp_path / "lm" / f"{kind}.pt"
        path.parent.mkdir(exist_ok=True)
        if kind == "truncated":
            path.write_bytes(good.read_bytes()[:2000])
        elif kind == "text":
            path.write_text("this is no checkpoint\n")
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "other-torch-file":
            torch.save({"weights": torch.zeros(3)}, path)
        elif kind == "hostile":
            path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
        elif kind == "translation":
            shutil.copy(trained_pair[0] / "checkpoint_last.pt", path)
        elif kind == "permuted":
            lines = (corpus / "dual" / f"dict.{SOURCE}.txt").read_text().splitlines()
            (path.parent / "dict.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
            shutil.copy(good, path)
        elif kind == "shorter":
            lines = (corpus / "dual" / f"dict.{SOURCE}.txt").read_text().splitlines()
            (path.parent / "dict.txt").write_text("\n".join(lines[:-8]) + "\n")
            shutil.copy(good, path)
        elif kind == "cut-output":
            rewrite(good, path, lambda state: state["cfg"]["task"].update(output_dictionary_size=10))
        elif kind == "backward":
            rewrite(good, path, lambda state: state["cfg"]["task"].update(past_target=True))
        return path

    return make


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", "there is no such file"),
        ("truncated", "cannot be read as a fairseq checkpoint"),
        ("text", "cannot be read as a fairseq checkpoint"),
        ("empty", "cannot be read as a fairseq checkpoint"),
        ("hostile", "cannot be read as a fairseq checkpoint"),
        ("other-torch-file", "cannot be read as a fairseq checkpoint"),
        ("translation", "checkpoint of --task dual_translation, not a language model"),
        ("permuted", f"is not the data's dict.{SOURCE}.txt: symbol 4 is"),
        ("shorter", f"but the data's dictionary of {SOURCE} has"),
        ("cut-output", "--output-dictionary-size"),
        ("backward", "does not predict the next token only"),
    ],
)
def test_language_model_that_cannot_serve(command, bad_lm, language_models, tmp_path, kind, message):
    path = bad_lm(kind)
    refused = command("--src-lm", path, "--tgt-lm", language_models[TARGET])
    assert message in refused and "--src-lm" in refused and str(path) in refused
    assert not (tmp_path / "ran").exists()


def test_language_models_in_the_wrong_order(command, language_models):
    refused = command("--src-lm", language_models[TARGET], "--tgt-lm", language_models[SOURCE])
    assert "--src-lm" in refused and str(language_models[TARGET]) in refused


@pytest.mark.parametrize("given, missing", [("src", "--tgt-lm"), ("tgt", "--src-lm"), (None, "--src-lm and --tgt-lm")])
def test_a_language_model_that_is_not_given(command, language_models, given, missing):
    options = [] if given is None else [f"--{given}-lm", language_models[SOURCE if given == "src" else TARGET]]
    assert f"{missing} missing" in command(*options)


# --- options


@pytest.mark.parametrize(
    "option, value",
    [
        ("--dual-lambda", "-0.01"),
        ("--dual-lambda", "nan"),
        ("--dual-lambda", "inf"),
        ("--dual-lambda-reverse", "-1"),
        ("--dual-gap-clip", "-5"),
        ("--dual-gap-clip", "nan"),
        ("--dual-start-update", "-1"),
        ("--dual-ramp-updates", "-1"),
        ("--label-smoothing", "1.5"),
        ("--eval-bleu-detok-args", "{moses"),
    ],
)
def test_option_out_of_range(command, lm_options, option, value):
    assert command(*lm_options, f"{option}={value}").startswith(f"dual_fairseq: error: {option} {value}")


def test_left_padded_targets(command):
    assert "--left-pad-target: not for a pair" in command("--dual-lambda", 0, "--left-pad-target")


def test_another_criterion(command):
    assert "--criterion label_smoothed_cross_entropy" in command("--criterion", "label_smoothed_cross_entropy")


def test_the_criterion_without_the_pair(monkeypatch, corpus, tmp_path):
    argv = [
        "fairseq-train", corpus / "dual", "--user-dir", PLUGIN, "--task", "translation", *TINY["transformer"],
        "--criterion", "dual_cross_entropy", "--cpu", "--max-tokens", 300, "--save-dir", tmp_path,
    ]  # fmt: skip
    assert "--task dual_translation" in refusal(monkeypatch, fairseq_train, argv)


@pytest.mark.parametrize(
    "model, message",
    [
        ("--arch rnn_search", "there is no such arch; did you mean rnnsearch or"),
        ("--arch lstm_lm", "not an encoder–decoder"),
        ("--arch transformer_lm", "not an encoder–decoder"),
        ("--arch wav2vec2", "not an encoder–decoder"),
        ("--arch nonautoregressive_transformer", "not autoregressive"),
        ("--arch convtransformer", "is for speech"),
        ("--arch wav2vec_seq2seq", "is for speech"),
        ("--arch transformer_from_pretrained_xlm", "You must specify a path for --pretrained-xlm-checkpoint"),
        ("--arch bart_large", "cannot be built with these options and dictionaries: --share-all-embeddings requires"),
    ],
)  # fmt: skip
def test_arch_that_has_no_conditional_probability(command, model, message):
    assert message in command("--dual-lambda", 0, model=model)


# --- data


def test_data_directory_and_languages(command, corpus, tmp_path):
    assert "no such data directory" in command(data=tmp_path / "nowhere")
    assert "needs two languages" in command(languages=(SOURCE, SOURCE))
    assert "has no dict.zz.txt" in command(languages=("zz", TARGET))
    bare = tmp_path / "bare"
    bare.mkdir()
    assert f"has no dict.{SOURCE}.txt" in command(data=bare)


def data_with(corpus: Path, destination: Path, train_lines: tuple[int, int]) -> Path:
    """The corpus with a training split of so many source and target sentences."""
    data = shutil.copytree(corpus / "dual", destination)
    for language, lines in zip((SOURCE, TARGET), train_lines, strict=True):
        text = destination / f"short.{language}"
        text.write_text("s1 s2\n" * lines)
        out = destination / f"binarized-{language}"
        binarize(
            "--only-source", "--srcdict", data / f"dict.{language}.txt", "--trainpref", text,
            "--destdir", out,
        )  # fmt: skip
        for suffix in ("bin", "idx"):
            shutil.copy(out / f"train.{suffix}", data / f"train.{SOURCE}-{TARGET}.{language}.{suffix}")
    return data


def test_sides_of_unequal_length(command, corpus, tmp_path):
    data = data_with(corpus, tmp_path / "data", (3, 2))
    refused = command("--dual-lambda", 0, data=data)
    assert f"split 'train' has 3 {SOURCE} and 2 {TARGET} sentences" in refused


def test_empty_split(command, corpus, tmp_path):
    data = data_with(corpus, tmp_path / "data", (0, 0))
    assert f"{data}/train.{SOURCE}-{TARGET}.{SOURCE}.bin, .idx: have no sentences: the split is empty" in command(
        "--dual-lambda", 0, data=data
    )


def test_missing_split(command, corpus):
    assert "has no binarized split 'dev'" in command("--dual-lambda", 0, "--valid-subset", "dev")


# --- checkpoints


@pytest.fixture(scope="module")
def plain_checkpoint(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("plain")
    fairseq_here(
        "train", corpus / "dual", "--task", "translation", "-s", SOURCE, "-t", TARGET, *TINY["transformer"],
        "--optimizer", "sgd", "--lr", 0.1, "--max-update", 1, "--max-tokens", 300, "--no-epoch-checkpoints", "--cpu",
        "--save-dir", directory,
    )  # fmt: skip
    return directory / "checkpoint_last.pt"


def generate_refusal(monkeypatch, data, path, languages) -> str:
    argv = [
        "fairseq-generate", data, "--user-dir", PLUGIN, "--task", "dual_translation", "-s", languages[0],
        "-t", languages[1], "--path", path, "--cpu",
    ]  # fmt: skip
    return refusal(monkeypatch, fairseq_generate, argv)


def test_a_single_model_given_as_a_pair(monkeypatch, corpus, plain_checkpoint):
    refused = generate_refusal(monkeypatch, corpus / "dual", plain_checkpoint, (SOURCE, TARGET))
    assert "holds a single model, not a pair" in refused and "--init-src2tgt" in refused


def test_a_direction_that_the_checkpoint_does_not_have(monkeypatch, corpus, trained_pair, tmp_path):
    data = tmp_path / "other"
    shutil.copytree(corpus / "dual", data)
    shutil.copy(data / f"dict.{TARGET}.txt", data / "dict.zz.txt")
    refused = generate_refusal(monkeypatch, data, trained_pair[0] / "checkpoint_last.pt", (SOURCE, "zz"))
    assert f"holds the directions {SOURCE}-{TARGET}, {TARGET}-{SOURCE}" in refused


@pytest.mark.parametrize("option", ["--init-src2tgt", "--init-tgt2src"])
def test_warm_start_from_a_checkpoint_that_does_not_fit(command, plain_checkpoint, language_models, tmp_path, option):
    no_lm = ("--dual-lambda", 0)
    assert "no such file" in command(*no_lm, option, tmp_path / "none.pt")
    if option == "--init-tgt2src":
        assert f"translates {SOURCE}-{TARGET}, not {TARGET}-{SOURCE}" in command(*no_lm, option, plain_checkpoint)
    else:
        assert "with --arch transformer, not lstm" in command(*no_lm, option, plain_checkpoint, model="lstm")
        wider = " ".join(TINY["transformer"]).replace("ffn-embed-dim 32", "ffn-embed-dim 64")
        assert "ffn-embed-dim 32, not 64" in command(*no_lm, option, plain_checkpoint, model=wider)
        heads = " ".join(TINY["transformer"]).replace("encoder-attention-heads 2", "encoder-attention-heads 4")
        assert "--encoder-attention-heads 2, not 4" in command(*no_lm, option, plain_checkpoint, model=heads)
    assert option in command(*no_lm, option, language_models[SOURCE])


def test_warm_start_from_another_dictionary(command, corpus, plain_checkpoint, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(plain_checkpoint, elsewhere / "model.pt")
    lines = (corpus / "dual" / f"dict.{TARGET}.txt").read_text().splitlines()
    (elsewhere / f"dict.{TARGET}.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    refused = command("--dual-lambda", 0, "--init-src2tgt", elsewhere / "model.pt")
    assert f"is not the data's dict.{TARGET}.txt" in refused


def test_a_detokenizer_that_does_not_exist(command):
    refused = command("--dual-lambda", 0, "--eval-bleu", "--eval-bleu-detok", "mooses")
    assert "--eval-bleu-detok mooses: choose one of " in refused and "moses" in refused


# --- checkpoints to go on from, and to translate with


@pytest.fixture
def bad_checkpoint(trained_pair, plain_checkpoint, language_models, tmp_path):
    pair = trained_pair[0] / "checkpoint_last.pt"

    def make(kind: str) -> Path:
        path = tmp_path / f"{kind}.pt"
        if kind == "truncated":
            path.write_bytes(pair.read_bytes()[:-4000])
        elif kind == "text":
            path.write_text("this is no checkpoint\n")
        elif kind == "empty":
            path.touch()
        elif kind == "language-model":
            shutil.copy(language_models[SOURCE], path)
        elif kind == "single":
            shutil.copy(plain_checkpoint, path)
        elif kind == "pair":
            shutil.copy(pair, path)
        return path

    return make


UNREADABLE = "cannot be read as a fairseq checkpoint"
WIDER = " ".join(TINY["transformer"]).replace("ffn-embed-dim 32", "ffn-embed-dim 64")


@pytest.mark.parametrize("how", ["restore", "finetune", "resume"])
@pytest.mark.parametrize(
    ("kind", "model", "message"),
    [
        ("missing", "transformer", "there is no such file"),
        ("truncated", "transformer", UNREADABLE),
        ("text", "transformer", UNREADABLE),
        ("empty", "transformer", UNREADABLE),
        ("language-model", "transformer", "holds a single model, not a pair"),
        ("single", "transformer", "holds a single model, not a pair"),
        ("pair", WIDER, "was trained with --decoder-ffn-embed-dim 32, not 64; give the same options"),
        ("pair", "lstm", "does not fit this model: it was trained with --arch transformer, not lstm"),
    ],
    ids=["missing", "truncated", "text", "empty", "lm", "single", "another-size", "another-arch"],
)
def test_a_checkpoint_to_go_on_from(command, bad_checkpoint, tmp_path, how, kind, model, message):
    path = bad_checkpoint(kind)
    if how == "resume":
        (tmp_path / "run").mkdir()
        if kind == "missing":
            pytest.skip("a run that has no last checkpoint begins with none")
        path = shutil.copy(path, tmp_path / "run" / "checkpoint_last.pt")
        options = ("--save-dir", tmp_path / "run")
    else:
        options = ({"restore": "--restore-file", "finetune": "--finetune-from-model"}[how], path)
    refused = command("--dual-lambda", 0, *options, model=model)
    assert message in refused
    assert str(path) in refused or "holds a single model" in refused


@pytest.mark.slow
def test_a_restore_file_in_the_run_s_own_folder_may_still_have_to_be_made(corpus, tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    for updates in (1, 2):
        run = train(
            corpus / "dual", tmp_path, "--dual-lambda", 0, "--restore-file", last, "--optimizer", "sgd", "--lr", 0.1,
            "--max-update", updates,
        )  # fmt: skip
        assert [record["num_updates"] for record in run.logged("train_inner")] == [updates]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file"),
        ("truncated", UNREADABLE),
        ("text", UNREADABLE),
        ("empty", UNREADABLE),
        ("language-model", "is not an encoder–decoder"),
        ("single", "holds a single model, not a pair"),
    ],
)
def test_a_checkpoint_to_translate_with(monkeypatch, corpus, bad_checkpoint, kind, message):
    path = bad_checkpoint(kind)
    refused = generate_refusal(monkeypatch, corpus / "dual", path, (SOURCE, TARGET))
    assert message in refused
    assert f"--path {path}: " in refused or kind in ("language-model", "single")


def test_when_the_first_of_two_processes_refuses_a_checkpoint_the_other_ends_too(corpus, tmp_path):
    last = tmp_path / "checkpoint_last.pt"
    last.write_text("this is no checkpoint\n")
    options = ("--dual-lambda", 0, "--optimizer", "sgd", "--lr", 0.1, "--ddp-backend", "legacy_ddp")
    first, second = train_by_two(corpus / "dual", tmp_path, *options, check=False)
    assert (first.returncode, second.returncode) == (1, 1)
    assert first.error.startswith(f"dual_fairseq: error: {last}: cannot be read as a fairseq checkpoint")
    assert "Traceback" not in first.output + second.output and "dual_fairseq: error" not in second.output
    assert last.read_text() == "this is no checkpoint\n"


def test_a_pair_given_to_the_task_of_single_models(monkeypatch, corpus, bad_checkpoint, tmp_path):
    path = bad_checkpoint("pair")
    common = [corpus / "dual", "--user-dir", PLUGIN, "--task", "translation", "-s", SOURCE, "-t", TARGET, "--cpu"]
    message = f"{path}: holds a pair of models, not a single one: use it with --task dual_translation"
    assert message in refusal(monkeypatch, fairseq_generate, ["fairseq-generate", *common, "--path", path])
    more = [*TINY["transformer"], "--max-tokens", 300, "--save-dir", tmp_path / "save", "--finetune-from-model", path]
    assert message in refusal(monkeypatch, fairseq_train, ["fairseq-train", *common, *more])


def test_a_pair_over_other_dictionaries(monkeypatch, corpus, bad_checkpoint, tmp_path):
    data = shutil.copytree(corpus / "dual", tmp_path / "data")
    lines = (data / f"dict.{TARGET}.txt").read_text().splitlines()
    (data / f"dict.{TARGET}.txt").write_text("\n".join(lines[:-8]) + "\n")
    refused = generate_refusal(monkeypatch, data, bad_checkpoint("pair"), (SOURCE, TARGET))
    assert f"pair.pt: was trained with another dictionary of {TARGET} than the data's dict.{TARGET}.txt" in refused


# --- places to write to


@pytest.mark.parametrize("option", ["--save-dir", "--lm-score-cache"])
def test_a_folder_that_cannot_be_made(command, lm_options, tmp_path, option):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "below", Path("/proc/none")):
        refused = command(*lm_options, option, folder)
        assert refused.startswith(f"dual_fairseq: error: {option} {folder}: cannot be ")


# A limit on the size of a file is a full disk that needs no privileges; semaphores are small files too.
FULL = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_score_cache_without_room(corpus, lm_options, tmp_path):
    cache, full = tmp_path / "cache", (sys.executable, "-c", FULL, sys.executable)
    options = (*lm_options, "--lm-score-cache", cache, "--lr", 0.1)
    run = train(corpus / "dual", tmp_path / "run", *options, check=False, here=False, launcher=full)
    assert run.returncode == 1 and "Traceback" not in run.output
    assert run.error.startswith(f"dual_fairseq: error: --lm-score-cache {cache}: cannot be used (File too large)")
    assert not list(cache.glob("*.npy"))


@pytest.mark.parametrize("kind", ["other-data", "garbage", "torn", "pickle", "without-limits"])
def test_a_file_of_scores_that_is_not_what_its_name_says(command, corpus, language_models, lm_options, tmp_path, kind):
    dictionary = Dictionary.load(str(corpus / "dual" / f"dict.{SOURCE}.txt"))
    sentences = load_indexed_dataset(str(corpus / "dual" / f"valid.{SOURCE}-{TARGET}.{SOURCE}"), dictionary)
    key = cache_key(str(language_models[SOURCE]), dictionary, sentences)
    path = tmp_path / f"valid.{SOURCE}.{key}.npy"
    np.save(path, np.zeros(3 if kind == "other-data" else len(sentences), dtype=np.float32))
    path.with_suffix(".json").write_text('{"max_positions": 100}')
    if kind == "garbage":
        path.write_bytes(b"garbage")
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "pickle":
        np.save(path, np.array([Hostile(tmp_path / "ran")], dtype=object), allow_pickle=True)
    elif kind == "without-limits":
        path.with_suffix(".json").unlink()
    refused = command(*lm_options, "--lm-score-cache", tmp_path)
    assert str(path.with_suffix("")) in refused and "remove it" in refused
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("language", ["x/y", "x y", "-"])
def test_a_language_code_that_names_no_file(command, language):
    assert f"has no dict.{language}.txt" in command("--dual-lambda", 0, languages=(language, TARGET))


# --- as a user sees it


def test_a_refusal_is_one_line_and_status_1(corpus, tmp_path):
    options = ("--lr", 0.1, "--src-lm", "nowhere.pt", "--tgt-lm", "nowhere.pt")
    run = train(corpus / "dual", tmp_path, *options, check=False, here=False)
    assert run.returncode == 1
    assert "Traceback" not in run.output
    assert run.error == "dual_fairseq: error: --src-lm nowhere.pt: there is no such file"


def test_an_unknown_language_model_dictionary_is_said(corpus, language_models, tmp_path):
    for language, path in language_models.items():
        rewrite(path, tmp_path / f"{language}.pt", lambda s: s["cfg"]["task"].update(data="/gone"))
    run = train(
        corpus / "dual", tmp_path / "run", "--src-lm", tmp_path / f"{SOURCE}.pt", "--tgt-lm", tmp_path / f"{TARGET}.pt",
        "--optimizer", "sgd", "--lr", 0.1, "--max-update", 1,
    )  # fmt: skip
    assert run.output.count("no dict.txt beside it or in the data directory it was trained on") == 2
