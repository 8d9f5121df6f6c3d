"""Real ``fairseq-train`` runs of a tiny pair, and what the other fairseq commands make of its checkpoints."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from helpers import (
    LSTM_LM,
    PLUGIN,
    SOURCE,
    TARGET,
    TINY,
    binarize,
    fairseq_here,
    max_difference,
    parameter_difference,
    parameters,
    train,
    train_by_two,
    train_language_model,
)

from dual_fairseq.plugin.checkpoint import load_state

FORWARD, REVERSE = f"{SOURCE}-{TARGET}", f"{TARGET}-{SOURCE}"
BOTH_WAYS = [(SOURCE, TARGET), (TARGET, SOURCE)]


# --- what a run logs and keeps


def test_every_name_of_the_contract_is_logged_in_training_and_validation(trained_pair):
    _, run = trained_pair
    losses = {"loss", "nll_loss", "ppl", f"nll_loss_{FORWARD}", f"nll_loss_{REVERSE}"}
    gaps = {"gap_abs", "gap_sq", "gap_mean", "neg_weight", "dual_lambda"}
    bleu = {"bleu", f"bleu_{FORWARD}", f"bleu_{REVERSE}"}
    for record in run.logged("train"):
        assert {f"train_{name}" for name in losses | gaps} <= record.keys()
        assert record["train_dual_lambda"] == 0.02
    for record in run.logged("valid"):
        assert {f"valid_{name}" for name in losses | gaps | bleu} <= record.keys()
        mean = (record[f"valid_bleu_{FORWARD}"] + record[f"valid_bleu_{REVERSE}"]) / 2
        assert record["valid_bleu"] == pytest.approx(mean, abs=0.011)
    assert "valid_best_bleu" in run.logged("valid")[-1]


def test_a_checkpoint_holds_both_directions_and_no_language_model(trained_pair):
    directory, _ = trained_pair
    state = load_state(str(directory / "checkpoint_best.pt"), "--path")
    arch_keys = {direction: set() for direction in (FORWARD, REVERSE)}
    for key in state["model"]:
        models, direction, arch_key = key.split(".", 2)
        assert models == "models"
        arch_keys[direction].add(arch_key)
    assert arch_keys[FORWARD] == arch_keys[REVERSE] != set()
    assert not state.get("criterion")
    assert len(state["last_optimizer_state"]["state"]) == sum(1 for k in state["model"] if not k.endswith("version"))


@pytest.mark.parametrize("source, target", BOTH_WAYS)
def test_generate_and_interactive_translate_both_ways(corpus, trained_pair, source, target, tmp_path):
    directory, _ = trained_pair
    common = (
        corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target, "--cpu",
        "--path", directory / "checkpoint_best.pt", "--beam", 2, "--max-len-b", 12,
    )  # fmt: skip
    run = fairseq_here("generate", *common, "--gen-subset", "test", "--batch-size", 8)
    hypotheses = {
        int(line.split("\t")[0][2:]): line.split("\t")[2] for line in run.output.splitlines() if line.startswith("H-")
    }
    assert sorted(hypotheses) == list(range(16))
    words = set(" ".join(hypotheses.values()).split())
    assert words and all(word.startswith("t" if target == TARGET else "s") for word in words)

    sentence = next(line.split("\t")[1] for line in run.output.splitlines() if line.startswith("S-0\t"))
    (tmp_path / "input").write_text(sentence + "\n")
    interactive = fairseq_here("interactive", *common, "--input", tmp_path / "input")
    (line,) = (line for line in interactive.output.splitlines() if line.startswith("H-0"))
    assert line.split("\t")[2] == hypotheses[0]


def test_validate_gives_the_same_figures_from_either_side(corpus, trained_pair):
    directory, run = trained_pair
    records = []
    for source, target in BOTH_WAYS:
        out = fairseq_here(
            "validate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target,
            "--path", directory / "checkpoint_last.pt", "--valid-subset", "valid", "--batch-size", 8, "--cpu",
            "--log-format", "json", "--eval-bleu", "--eval-bleu-detok", "moses",
        )  # fmt: skip
        records += [{k.removeprefix("valid_"): v for k, v in record.items()} for record in out.logged("valid")]
    for name in ("loss", f"nll_loss_{FORWARD}", f"nll_loss_{REVERSE}", "gap_abs", "gap_sq", "bleu"):
        assert records[0][name] == pytest.approx(records[1][name], abs=0.002)
        assert records[0][name] == pytest.approx(run.logged("valid")[-1][f"valid_{name}"], abs=0.002)
    assert records[0]["gap_mean"] == pytest.approx(-records[1]["gap_mean"], abs=0.002)
    assert records[0]["dual_lambda"] == records[1]["dual_lambda"] == 0.02


# --- any arch


@pytest.mark.parametrize(
    "model",
    [
        "--arch transformer_tiny --share-all-embeddings",
        " ".join(TINY["transformer"]) + " --adaptive-softmax-cutoff 8,16",
        "--arch fconv --encoder-layers [(16,3)] --decoder-layers [(16,3)] --encoder-embed-dim 16 "
        "--decoder-embed-dim 16 --decoder-out-embed-dim 16",
        *(
            pytest.param(model, marks=pytest.mark.slow)
            for model in (
                " ".join(TINY["lstm"]),
                "--arch transformer_iwslt_de_en --encoder-layers 1 --decoder-layers 1 --max-source-positions 64",
                "--arch lightconv --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
                "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
                "--decoder-attention-heads 2 --encoder-conv-dim 16 --decoder-conv-dim 16 "
                "--encoder-kernel-size-list [3] --decoder-kernel-size-list [3]",
                "--arch bart_base --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
                "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
                "--decoder-attention-heads 2",
            )
        ),
    ],
    ids=lambda model: "_".join(model.replace("--arch ", "").split()[::999]) + ("_adaptive" * ("adaptive" in model)),
)
def test_any_encoder_decoder_trains_and_generates_as_a_pair(corpus, joined_corpus, lm_options, tmp_path, model):
    joined = "share-all" in model or "bart" in model
    data = joined_corpus if joined else corpus / "dual"
    options = ("--dual-lambda", 0) if joined else lm_options
    run = train(data, tmp_path, *options, "--max-update", 3, "--lr", 0.1, "--optimizer", "sgd", model=model)
    losses = [record["loss"] for record in run.logged("train_inner")]
    assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)
    for source, target in BOTH_WAYS:
        out = fairseq_here(
            "generate", data, "--user-dir", PLUGIN, "--task", "dual_translation", "-s", source, "-t", target, "--cpu",
            "--path", tmp_path / "checkpoint_last.pt", "--beam", 2, "--max-len-b", 5, "--gen-subset", "valid",
            "--batch-size", 8,
        )  # fmt: skip
        assert sum(line.startswith("H-") for line in out.output.splitlines()) == 24


@pytest.fixture(scope="session")
def joined_corpus(corpus, tmp_path_factory):
    text, data = corpus / "text", tmp_path_factory.mktemp("joined") / "dual"
    binarize(
        "-s", SOURCE, "-t", TARGET, "--joined-dictionary", "--trainpref", text / "train",
        "--validpref", text / "valid", "--destdir", data,
    )  # fmt: skip
    return data


def test_one_language_model_may_serve_both_languages_of_a_joint_dictionary(joined_corpus, tmp_path):
    lm_data = tmp_path / "lm-data"
    lm_data.mkdir()
    shutil.copy(joined_corpus / f"dict.{SOURCE}.txt", lm_data / "dict.txt")
    for split in ("train", "valid"):
        for suffix in ("bin", "idx"):
            shutil.copy(joined_corpus / f"{split}.{FORWARD}.{SOURCE}.{suffix}", lm_data / f"{split}.{suffix}")
    lm = train_language_model(lm_data, tmp_path / "lm", *LSTM_LM)
    run = train(
        joined_corpus, tmp_path / "pair", "--src-lm", lm, "--tgt-lm", lm, "--max-update", 2, "--lr", 0.1,
        "--optimizer", "sgd",
    )  # fmt: skip
    assert all(record["gap_abs"] > 0 for record in run.logged("train_inner"))


# --- λ over time


def test_start_and_ramp(corpus, lm_options, tmp_path):
    run = train(
        corpus / "dual", tmp_path, *lm_options, "--dual-lambda", 0.04, "--dual-start-update", 2,
        "--dual-ramp-updates", 4, "--max-update", 8, "--lr", 0.1, "--optimizer", "sgd",
    )  # fmt: skip
    records = run.logged("train_inner")
    assert [record["num_updates"] for record in records] == list(range(1, 9))
    assert all("dual_lambda" not in record and "gap_abs" not in record for record in records[:2])
    assert [record["dual_lambda"] for record in records[2:]] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.04, 0.04])


# --- going on


@pytest.mark.parametrize("model", ["transformer", pytest.param("lstm", marks=pytest.mark.slow)])
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not(corpus, lm_options, tmp_path, model):
    options = (
        *lm_options, "--optimizer", "adam", "--lr", 0.01, "--save-interval-updates", 3, "--keep-interval-updates", 9,
        "--dual-ramp-updates", 6,
    )  # fmt: skip
    unbroken = train(corpus / "dual", tmp_path / "unbroken", *options, "--max-update", 12, model=model)
    updates_an_epoch = max(r["num_updates"] for r in unbroken.logged("train_inner") if r["epoch"] == 1)
    assert updates_an_epoch % 3, "the stop has to fall inside an epoch"
    (tmp_path / "broken").mkdir()
    stopped = next(n for n in (3, 6, 9) if n > updates_an_epoch)
    (source,) = (tmp_path / "unbroken").glob(f"checkpoint_*_{stopped}.pt")
    shutil.copy(source, tmp_path / "broken" / "checkpoint_last.pt")
    resumed = train(corpus / "dual", tmp_path / "broken", *options, "--max-update", 12, model=model)
    first = resumed.logged("train_inner")[0]
    assert first["num_updates"] == stopped + 1
    expected = unbroken.logged("train_inner")[stopped]
    assert first["loss"] == pytest.approx(expected["loss"], abs=0.0011)
    assert parameter_difference(tmp_path / "unbroken", tmp_path / "broken") < 1e-5


def test_hyper_parameters_may_change_when_a_run_goes_on(corpus, lm_options, tmp_path):
    options = (*lm_options, "--lr", 0.01, "--optimizer", "adam")
    train(corpus / "dual", tmp_path, *options, "--max-update", 2, "--dual-lambda", 0.01)
    run = train(corpus / "dual", tmp_path, *options, "--max-update", 4, "--dual-lambda", 0.5, "--dual-gap-clip", 2)
    records = run.logged("train_inner")
    assert [record["num_updates"] for record in records] == [3, 4]
    assert all(record["dual_lambda"] == 0.5 for record in records)


@pytest.fixture(scope="module")
def plain_checkpoints(corpus, tmp_path_factory):
    """Each direction trained alone by ``--task translation``."""
    directory = tmp_path_factory.mktemp("plain")
    for source, target in BOTH_WAYS:
        fairseq_here(
            "train", corpus / "dual", "--task", "translation", "-s", source, "-t", target, *TINY["transformer"],
            "--optimizer", "adam", "--lr", 0.01, "--max-update", 3, "--max-tokens", 300, "--no-epoch-checkpoints",
            "--cpu", "--save-dir", directory / f"{source}-{target}", "--eval-bleu", "--user-dir", PLUGIN,
        )  # fmt: skip
    return {direction: directory / direction / "checkpoint_last.pt" for direction in (FORWARD, REVERSE)}


def warm_start(plain_checkpoints) -> tuple[object, ...]:
    return ("--init-src2tgt", plain_checkpoints[FORWARD], "--init-tgt2src", plain_checkpoints[REVERSE])


def test_warm_start_from_two_plain_checkpoints(corpus, plain_checkpoints, tmp_path):
    train(
        corpus / "dual", tmp_path, *warm_start(plain_checkpoints), "--dual-lambda", 0, "--lr", 0, "--optimizer", "sgd",
        "--max-update", 1,
    )  # fmt: skip
    pair = parameters(tmp_path)
    for direction, path in plain_checkpoints.items():
        plain = load_state(str(path), "--path")["model"]
        assert plain and all(torch.equal(pair[f"models.{direction}.{key}"], value) for key, value in plain.items())


@pytest.mark.parametrize("how", ["finetune", "restore"])
def test_warm_start_from_a_pair(corpus, trained_pair, lm_options, tmp_path, how):
    directory, _ = trained_pair
    best = directory / "checkpoint_best.pt"
    start = (
        ("--finetune-from-model", best)
        if how == "finetune"
        else (
            *("--restore-file", best, "--reset-optimizer", "--reset-lr-scheduler", "--reset-dataloader"),
            "--reset-meters",
        )
    )
    run = train(corpus / "dual", tmp_path, *start, *lm_options, "--lr", 0, "--optimizer", "sgd", "--max-update", 1)
    assert run.logged("train_inner")[0]["num_updates"] == 1
    assert max_difference(parameters(directory, "checkpoint_best.pt"), parameters(tmp_path)) == 0


def test_with_lambda_0_a_pair_is_updated_as_two_plain_runs(corpus, plain_checkpoints, tmp_path):
    """Full batches by --sentence-avg, SGD, no dropout: each direction as by ``--task translation`` alone."""
    options = (
        "--sentence-avg", "--optimizer", "sgd", "--lr", 0.05, "--max-update", 4, "--dropout", 0, "--batch-size", 200,
        "--max-tokens", 10000, "--label-smoothing", 0.1, "--clip-norm", 0,
    )  # fmt: skip
    train(corpus / "dual", tmp_path / "pair", *warm_start(plain_checkpoints), "--dual-lambda", 0, *options)
    pair = parameters(tmp_path / "pair")
    for (source, target), direction in zip(BOTH_WAYS, (FORWARD, REVERSE), strict=True):
        fairseq_here(
            "train", corpus / "dual", "--task", "translation", "-s", source, "-t", target, *TINY["transformer"],
            "--criterion", "label_smoothed_cross_entropy", "--finetune-from-model", plain_checkpoints[direction],
            "--save-dir", tmp_path / direction, "--no-epoch-checkpoints", "--cpu", "--user-dir", PLUGIN, *options,
        )  # fmt: skip
        plain = parameters(tmp_path / direction)
        start = load_state(str(plain_checkpoints[direction]), "--path")["model"]
        assert max_difference(plain, start) > 1e-3, "nothing was learnt"
        mine = {key: pair[f"models.{direction}.{key}"] for key in plain}
        assert max_difference(mine, plain) < 1e-5


# --- fairseq's own machinery around it


@pytest.mark.parametrize("backend", ["pytorch_ddp", pytest.param("legacy_ddp", marks=pytest.mark.slow)])
def test_two_processes_equal_one_over_the_same_global_batches(corpus, lm_options, trained_pair, tmp_path, backend):
    """One process with --update-freq 2 sees the same global batches as two with 1."""
    options = (
        *lm_options, "--finetune-from-model", trained_pair[0] / "checkpoint_best.pt", "--optimizer", "sgd",
        "--lr", 0.1, "--max-update", 4, "--dropout", 0, "--dual-lambda", 0.05,
    )  # fmt: skip
    train(corpus / "dual", tmp_path / "one", *options, "--update-freq", 2)
    train_by_two(corpus / "dual", tmp_path / "two", *options, "--ddp-backend", backend)
    assert parameter_difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_ema_validation_by_updates_and_shards(corpus, lm_options, tmp_path):
    shards = f"{corpus / 'dual'}:{corpus / 'dual'}"
    run = train(
        shards, tmp_path, *lm_options, "--store-ema", "--ema-decay", 0, "--validate-interval-updates", 2,
        "--max-epoch", 2, "--optimizer", "adam", "--lr", 0.01,
    )  # fmt: skip
    assert len(run.logged("valid")) > 2
    state = load_state(str(tmp_path / "checkpoint_last.pt"), "--path")
    # with no memory of the past, the average is the present
    ema, model = state["extra_state"]["ema"], state["model"]
    weights = [key for key in model if not key.endswith("version")]  # fairseq's markers of a format
    assert ema.keys() == model.keys() and all(torch.equal(ema[key], model[key]) for key in weights)


@pytest.mark.parametrize(("model", "options"), [("transformer", ()), ("lstm", ("--decoder-freeze-embed",))])
def test_word_vectors_follow_the_language_not_the_role(corpus, tmp_path, model, options):
    for language, value in ((SOURCE, 0.25), (TARGET, -0.5)):
        words = [line.split()[0] for line in (corpus / "dual" / f"dict.{language}.txt").read_text().splitlines()]
        lines = [f"{len(words)} 16", *(" ".join([word, *[str(value)] * 16]) for word in words)]
        (tmp_path / f"{language}.vec").write_text("\n".join(lines) + "\n")
    train(
        corpus / "dual", tmp_path / "pair", "--dual-lambda", 0, "--max-update", 1, "--lr", 0, "--optimizer", "sgd",
        "--encoder-embed-path", tmp_path / f"{SOURCE}.vec", "--decoder-embed-path", tmp_path / f"{TARGET}.vec",
        *options, model=model,
    )  # fmt: skip
    pair = parameters(tmp_path / "pair")
    for direction, encoder, decoder in ((FORWARD, 0.25, -0.5), (REVERSE, -0.5, 0.25)):
        assert (pair[f"models.{direction}.encoder.embed_tokens.weight"][4:24] == encoder).all()
        assert (pair[f"models.{direction}.decoder.embed_tokens.weight"][4:24] == decoder).all()
    for language in (SOURCE, TARGET):
        (tmp_path / f"{language}.vec").unlink()  # a trained pair needs them no more
    fairseq_here(
        "generate", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", TARGET, "-t", SOURCE,
        "--path", tmp_path / "pair" / "checkpoint_last.pt", "--gen-subset", "valid", "--beam", 1, "--cpu",
        "--max-len-b", 3,
    )  # fmt: skip


def test_early_stopping_on_mean_bleu(corpus, tmp_path):
    run = train(
        corpus / "dual", tmp_path, "--dual-lambda", 0, "--lr", 0, "--optimizer", "sgd", "--eval-bleu",
        "--eval-bleu-args", '{"beam": 1, "max_len_b": 5}', "--best-checkpoint-metric", "bleu",
        "--maximize-best-checkpoint-metric", "--patience", 2, "--max-epoch", 9,
    )  # fmt: skip
    assert len(run.logged("valid")) == 3
    assert "early stop since valid performance hasn't improved for last 2 runs" in run.output
