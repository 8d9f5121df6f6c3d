"""An option or a text that fairseq meets with a traceback, some of it after an epoch, gets one line before training."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import LSTM_LM, PLUGIN, SOURCE, SPLITS, TARGET, TINY, fairseq_here, sentence_pairs

import dual_fairseq
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.best_metric import small_batch
from dual_fairseq.plugin.checkpoint import load_state

dual_fairseq.register()

ADAM = ("--optimizer", "adam", "--lr", 0.001)
LONGEST = max(len(side.split()) + 1 for pair in sentence_pairs(*SPLITS["valid"]) for side in pair)


def train(corpus: Path, save_dir: Path, *args: object, max_tokens: int = 300, check: bool = True):
    """``fairseq-train`` of a tiny pair in this process, an epoch."""
    return fairseq_here(
        "train", corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET,
        *TINY["transformer"], "--criterion", "dual_cross_entropy", "--dual-lambda", 0, "--save-dir", save_dir, "--cpu",
        "--max-tokens", max_tokens, "--no-epoch-checkpoints", "--max-epoch", 1, *args, check=check,
    )  # fmt: skip


def refused(run) -> str:
    assert run.returncode == 1 and "\n" not in run.output
    return run.output


def updates(save_dir: Path) -> int:
    return load_state(str(save_dir / "checkpoint_last.pt"), "--path")["optimizer_history"][-1]["num_updates"]


# --- a run that goes on

SCHEDULERS = {
    "fixed": ("--lr-scheduler", "fixed"),
    "inverse_sqrt": ("--lr-scheduler", "inverse_sqrt", "--warmup-updates", 4),
    "plateau": ("--lr-scheduler", "reduce_lr_on_plateau"),
    "polynomial": ("--lr-scheduler", "polynomial_decay", "--total-num-update", 100),
}


@pytest.fixture(scope="module")
def scheduled(corpus, tmp_path_factory) -> dict[str, Path]:
    """A run of an epoch with each kind of state that schedulers leave."""
    runs = {name: tmp_path_factory.mktemp(name) for name in ("fixed", "inverse_sqrt", "plateau")}
    for name, folder in runs.items():
        train(corpus, folder, *ADAM, *SCHEDULERS[name])
    return runs


@pytest.mark.parametrize(
    ("before", "after"),
    [("fixed", "inverse_sqrt"), ("fixed", "plateau"), ("inverse_sqrt", "plateau"), ("plateau", "polynomial"),
     ("plateau", "fixed")],
)  # fmt: skip
def test_a_run_goes_on_with_another_learning_rate_scheduler(corpus, scheduled, tmp_path, before, after):
    shutil.copy(scheduled[before] / "checkpoint_last.pt", tmp_path)
    made = updates(tmp_path)
    train(corpus, tmp_path, *ADAM, *SCHEDULERS[after], "--max-epoch", 2)
    assert updates(tmp_path) == 2 * made


@pytest.mark.parametrize("optimizer", ["sgd", "torch_adam"])
def test_another_optimizer_is_refused_by_the_option_that_helps(corpus, scheduled, tmp_path, optimizer):
    shutil.copy(scheduled["fixed"] / "checkpoint_last.pt", tmp_path)
    other = ("--optimizer", optimizer, "--lr", 0.001, "--max-epoch", 2)
    message = refused(train(corpus, tmp_path, *other, check=False))
    assert "checkpoint_last.pt: was trained with another --optimizer" in message and "FairseqAdam, not" in message
    assert "--reset-optimizer" in message
    train(corpus, tmp_path, *other, "--reset-optimizer")


# --- the metric of the best checkpoint


@pytest.mark.parametrize(
    ("options", "metric", "hint"),
    [
        ((), "bleu", "give --eval-bleu, or one of loss, "),
        ((), "bleu_xx-yy", "give --eval-bleu, or one of loss, "),
        ((), "gap_abs", "give one of loss, nll_loss"),
        (("--eval-bleu",), "blue", "give one of bleu, bleu_xx-yy, bleu_yy-xx, "),
    ],
)
def test_a_metric_that_is_not_logged_is_refused_before_training(corpus, tmp_path, options, metric, hint):
    run = train(corpus, tmp_path, *ADAM, *options, "--best-checkpoint-metric", metric, check=False)
    message = refused(run)
    assert message.startswith(f"dual_fairseq: error: --best-checkpoint-metric {metric}: is not logged; {hint}")
    assert not list(tmp_path.iterdir())


def language_model(corpus: Path, save_dir: Path, *args: object, check: bool = True):
    return fairseq_here(
        "train", corpus / "lm" / SOURCE, "--user-dir", PLUGIN, "--task", "language_modeling", "--sample-break-mode",
        "eos", *LSTM_LM, "--save-dir", save_dir, "--cpu", *ADAM, "--max-epoch", 1, *args, check=check,
    )  # fmt: skip


def test_a_metric_that_is_not_logged_is_refused_for_other_tasks_too(corpus, tmp_path):
    options = ("--max-tokens", 300, "--best-checkpoint-metric", "nll_loss")
    message = refused(language_model(corpus, tmp_path, *options, check=False))
    assert "--best-checkpoint-metric nll_loss: is not logged; give one of " in message
    language_model(corpus, tmp_path, *options[:-1], "ppl")
    assert (tmp_path / "checkpoint_best.pt").is_file()


def test_validation_text_without_a_batch_is_refused():
    """fairseq leaves out fewer than 8 sentences by default."""

    class Lengths(list):
        size = list.__getitem__

    with pytest.raises(UserError, match=r"there is no batch of the 2 sentences.*the shortest has 3 tokens"):
        small_batch(SimpleNamespace(frozen_batches=[], dataset=Lengths([4, 3])))


# --- sentences that are too long


def test_a_sentence_over_max_tokens_is_named_with_its_length_in_every_command(corpus, scheduled, tmp_path):
    least = LONGEST - 1
    pairs = sentence_pairs(*SPLITS["valid"])
    longest = [i for i, pair in enumerate(pairs) if LONGEST in [len(side.split()) + 1 for side in pair]]

    def named(run) -> bool:
        return refused(run) in [
            f"dual_fairseq: error: --max-tokens {least}: the longest sentence (number {number} from 0) has {LONGEST} "
            f"tokens, </s> included; give --max-tokens {LONGEST} or more"
            for number in longest
        ]

    assert named(train(corpus, tmp_path / "pair", *ADAM, max_tokens=least, check=False))
    train(corpus, tmp_path / "pair", *ADAM, max_tokens=LONGEST)
    of_source = max(len(source.split()) + 1 for source, _ in pairs)
    message = refused(language_model(corpus, tmp_path / "lm", "--max-tokens", of_source - 1, check=False))
    assert f"has {of_source} tokens" in message
    used = (
        corpus / "dual", "--user-dir", PLUGIN, "--task", "dual_translation", "-s", SOURCE, "-t", TARGET, "--cpu",
        "--path", scheduled["fixed"] / "checkpoint_last.pt", "--max-tokens", least,
    )  # fmt: skip
    assert named(fairseq_here("generate", *used, "--gen-subset", "valid", check=False))
    assert named(fairseq_here("validate", *used, "--valid-subset", "valid", check=False))


def test_a_sentence_longer_than_the_model_takes(corpus, tmp_path):
    message = refused(train(corpus, tmp_path, *ADAM, "--max-target-positions", LONGEST - 1, check=False))
    assert f"has {LONGEST} tokens, </s> included, but the model takes {LONGEST - 1};" in message
    assert "--skip-invalid-size-inputs-valid-test" in message
    message = refused(train(corpus, tmp_path, *ADAM, max_tokens=2, check=False))
    assert "there is no batch of the 120 sentences." in message and "(the shortest has 3 tokens" in message
    assert "--required-batch-size-multiple (give 1)" in message


# --- dictionaries


@pytest.mark.parametrize("task", ["dual_translation", "translation", "language_modeling"])
def test_a_damaged_dictionary_is_named_by_every_task(corpus, tmp_path, task):
    data = tmp_path / "data"
    name = "dict.txt" if task == "language_modeling" else f"dict.{TARGET}.txt"
    shutil.copytree(corpus / "lm" / SOURCE if task == "language_modeling" else corpus / "dual", data)
    lines = (data / name).read_text().splitlines()
    (data / name).write_text("\n".join([*lines[:2], "<unk> 3", *lines[2:]]) + "\n")
    pair = () if task == "language_modeling" else ("-s", SOURCE, "-t", TARGET)
    model = LSTM_LM if task == "language_modeling" else TINY["transformer"]
    run = fairseq_here(
        "train", data, "--user-dir", PLUGIN, "--task", task, *pair, *model, "--max-tokens", 300, "--cpu", *ADAM,
        "--criterion", "dual_cross_entropy" if task == "dual_translation" else "cross_entropy", "--save-dir",
        tmp_path / "save", check=False,
    )  # fmt: skip
    assert refused(run).startswith(f"dual_fairseq: error: {data / name}: line 3 repeats '<unk>'")
