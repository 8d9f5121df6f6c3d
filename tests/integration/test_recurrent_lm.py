"""The arch ``rnn_lm``, and truncated back-propagation through running text."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch
from fairseq.data import Dictionary
from helpers import PLUGIN, SOURCE, TARGET, fairseq_here, train
from system.test_scripts import succeed

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.checkpoint import load_state
from dual_fairseq.plugin.language_model import load_language_model
from dual_fairseq.recurrent.running_text import RunningTextTask

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory':UserWarning")


# --- the arch -------------------------------------------------------------------------------------------------------


# --- running text: data ---------------------------------------------------------------------------------------------


# --- running text: states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_break_mode": "eos"}, "--sample-break-mode eos: not for running text"),
        ({"past_target": True}, "--past-target: not for running text"),
        ({"add_bos_token": True}, "--add-bos-token: not for running text"),
        ({"tokens_per_sample": 0}, "--tokens-per-sample 0: must be at least 1"),
    ],
)
def test_options_that_running_text_has_no_use_for_are_refused(options, message, corpus):
    plain = {
        "data": str(corpus / "lm" / SOURCE), "self_target": False, "past_target": False, "add_bos_token": False,
        "output_dictionary_size": -1, "shorten_method": "none", "pad_to_fixed_length": False,
        "pad_to_fixed_bsz": False, "sample_break_mode": "none", "tokens_per_sample": 5,
    }  # fmt: skip
    assert isinstance(RunningTextTask.setup_task(Namespace(**plain)), RunningTextTask)
    with pytest.raises(UserError, match=message):
        RunningTextTask.setup_task(Namespace(**{**plain, **options}))


# --- runs -----------------------------------------------------------------------------------------------------------

TINY_RNN = ("--arch", "rnn_lm", "--decoder-layers", 1, "--decoder-embed-dim", 16, "--decoder-hidden-size", 16)
RUNNING = ("--user-dir", PLUGIN, "--task", "language_modeling_running_text", "--tokens-per-sample", 12)


def test_a_model_of_running_text_is_trained_goes_on_and_serves_a_pair(corpus, language_models, tmp_path):
    data = corpus / "lm" / SOURCE
    command = [
        data, *RUNNING, *TINY_RNN, "--cell", "gru", "--share-decoder-input-output-embed", "--max-tokens", 96,
        "--optimizer", "adam", "--lr", 0.02, "--save-dir", tmp_path / "lm", "--cpu", "--no-epoch-checkpoints",
        "--log-format", "json",
    ]  # fmt: skip
    fairseq_here("train", *command, "--max-update", 7)
    run = fairseq_here("train", *command, "--max-epoch", 6)  # goes on in the middle of an epoch
    perplexities = [record["valid_ppl"] for record in run.logged("valid")]
    assert "running text" in run.output and perplexities[-1] < 0.8 * len(Dictionary.load(str(data / "dict.txt")))
    checkpoint = tmp_path / "lm" / "checkpoint_best.pt"
    again = fairseq_here(
        "validate", data, "--user-dir", PLUGIN, "--task", "language_modeling_running_text", "--path", checkpoint,
        "--max-tokens", 96, "--cpu", "--log-format", "json",
    )  # fmt: skip
    assert again.logged("valid")[-1]["valid_ppl"] == pytest.approx(min(perplexities), rel=0.01)

    symbols = Dictionary.load(str(corpus / "dual" / f"dict.{SOURCE}.txt"))
    lm = load_language_model(str(checkpoint), symbols, SOURCE, "--src-lm")
    sentence = torch.tensor([[symbols.nspecial, symbols.nspecial + 1, symbols.eos()]])
    assert -30 < float(lm.sentence_log_prob(sentence, torch.zeros(1))) < 0
    pair = train(
        corpus / "dual", tmp_path / "pair", "--src-lm", checkpoint, "--tgt-lm", language_models[TARGET],
        "--dual-lambda", 0.02, "--optimizer", "adam", "--lr", 0.01, "--max-update", 2,
    )  # fmt: skip
    assert pair.logged("valid")[-1]["valid_gap_abs"] > 0


def test_an_arch_without_states_is_refused(corpus, tmp_path):
    arch = ("--arch", "transformer_lm", "--decoder-layers", 1, "--decoder-embed-dim", 16, "--max-tokens", 96)
    run = fairseq_here(
        "train", corpus / "lm" / SOURCE, *RUNNING, *arch, "--save-dir", tmp_path, "--cpu", "--optimizer", "adam",
        check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "error: --arch transformer_lm: gives no state to carry" in run.error


@pytest.mark.slow
def test_the_script_trains_a_cell_of_choice_on_sentences_or_on_running_text(corpus, tmp_path):
    data, options = corpus / "lm" / SOURCE, ("--arch", "rnn", "--size", "tiny", "--cpu", "--max-epoch", 1)
    out = succeed("train_lm.sh", data, tmp_path / "a", *options, "--cell", "rnn", "--max-tokens", 300)
    assert "Language model (rnn, rnn, tiny;" in out
    more = ("--cell", "gru", "--running-text", 16, "--max-tokens", 160)
    succeed("train_lm.sh", data, tmp_path / "b", *options, *more)
    for folder, cell, task in (("a", "rnn", "language_modeling"), ("b", "gru", "language_modeling_running_text")):
        assert 1 < json.loads((tmp_path / folder / "perplexity.json").read_text())["perplexity"] < 100
        cfg = load_state(str(tmp_path / folder / "checkpoint_best.pt"), "--path")["cfg"]
        assert (cfg.model.cell, cfg.task._name) == (cell, task)
        symbols = Dictionary.load(str(data / "dict.txt"))
        load_language_model(str(tmp_path / folder / "checkpoint_best.pt"), symbols, SOURCE, "--src-lm")
    assert cfg.task.tokens_per_sample == 16
    assert succeed("train_lm.sh", data, tmp_path / "b", *options, *more).startswith(
        "Language model (rnn, gru, tiny): finished before"
    )
