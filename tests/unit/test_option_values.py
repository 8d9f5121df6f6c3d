"""What fairseq's own options may be: everything else is refused before any work."""

from argparse import Namespace

import pytest
from fairseq import options

import dual_fairseq
from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.option_values import check_option_values

dual_fairseq.register()


def test_what_can_be_is_taken():
    check_option_values(Namespace())
    check_option_values(Namespace(beam=12, nbest=12, num_shards=2, shard_id=1, temperature=0.5))
    check_option_values(Namespace(finetune_from_model="x.pt", restore_file="checkpoint_last.pt", model_overrides="{}"))
    check_option_values(Namespace(model_overrides="{'dropout': 0.1, 'dual_lambda': 0.5, 'tokens_per_sample': 9}"))
    check_option_values(Namespace(adam_betas=(0.9, 0.98), adafactor_eps="(1e-30, 1e-3)", post_process="@@ "))
    check_option_values(Namespace(sampling=True, beam=5, nbest=5, constraints="ordered", buffer_size=1))
    check_option_values(Namespace(restore_file="x.pt", reset_optimizer=True, update_freq=[1, 4], max_tokens=None))


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("generation", ["--path", "x.pt"]),
        ("interactive_generation", ["--path", "x.pt"]),
        ("training", ["--task", "translation", "--arch", "lstm"]),
    ],
)
def test_every_command_line_is_looked_at(command, needed):
    parser = getattr(options, f"get_{command}_parser")()
    with pytest.raises(UserError, match="--batch-size 0: give a number of at least 1"):
        options.parse_args_and_arch(parser, ["data", *needed, "--batch-size", "0"])


def test_a_training_without_an_arch():
    with pytest.raises(UserError, match="--arch: is missing; name one"):
        options.parse_args_and_arch(options.get_training_parser(), ["data"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"update_freq": [1, 0]}, "--update-freq 0: give a number of at least 1"),
        ({"update_freq": []}, "--update-freq: is empty"),
        ({"attention_dropout": 2.0}, "--attention-dropout 2.0: give a number from 0 to 1"),
        ({"lr": []}, "--lr: is empty"),
        ({"clip_norm": float("nan")}, "--clip-norm nan: give a number of at least 0"),
        ({"max_update": -1}, "--max-update -1"),
        ({"max_tokens": 0}, "--max-tokens 0: give a number of at least 1"),
        ({"batch_size": -5}, "--batch-size -5"),
        ({"num_workers": -1}, "--num-workers -1"),
        ({"required_batch_size_multiple": 0}, "--required-batch-size-multiple 0"),
        ({"validate_interval": 0}, "--validate-interval 0"),
        ({"save_interval": 0}, "--save-interval 0"),
        ({"log_interval": 0}, "--log-interval 0"),
        ({"seed": -1}, "--seed -1: give a number of at least 0 and below 2,147,483,648"),
        ({"seed": 2**40}, "--seed 1099511627776"),
        ({"beam": 0}, "--beam 0: give a number of at least 1"),
        ({"nbest": 9, "beam": 5}, "--nbest 9: needs --beam 9 or more, not 5"),
        ({"max_len_b": -5}, "--max-len-b -5"),
        ({"temperature": 0.0}, "--temperature 0.0: give a number above 0"),
        ({"adam_betas": "(0.9"}, r'--adam-betas \(0.9: give two numbers from 0 to below 1, such as "\(0.9, 0.98\)"'),
        ({"adam_betas": "(0.9, 'x')"}, "--adam-betas .*: give two numbers"),
        ({"adam_betas": "None"}, "--adam-betas None: give two numbers"),
        ({"adamax_betas": "(0.9, 1)"}, "--adamax-betas .*: give two numbers"),
        ({"adafactor_eps": "0.9"}, "--adafactor-eps 0.9: give two numbers"),
        ({"warmup_updates": -5}, "--warmup-updates -5: give a number of at least 0"),
        ({"lr": [0.1, -0.1]}, "--lr -0.1: give a number of at least 0"),
        ({"weight_decay": float("nan")}, "--weight-decay nan: give a number of at least 0"),
        ({"diverse_beam_strength": float("nan")}, "--diverse-beam-strength nan: give a number"),
        ({"quant_noise_pq": 2.0}, "--quant-noise-pq 2.0: give a number from 0 to 1"),
        ({"encoder_layerdrop": -1.0}, "--encoder-layerdrop -1.0: give a number from 0 to 1"),
        ({"max_source_positions": 0}, "--max-source-positions 0: give a number of at least 1"),
        ({"distributed_world_size": -1}, "--distributed-world-size -1: give a number of at least 1"),
        ({"post_process": "x"}, "--post-process x: is not a known segmentation"),
        ({"sampling": True, "beam": 5, "nbest": 1}, "--sampling: needs --nbest 5, the same as --beam, not 1"),
        ({"diverse_beam_groups": 3, "beam": 5}, "--diverse-beam-groups 3: does not divide --beam 5"),
        ({"constraints": "ordered"}, "--constraints: works only with fairseq-interactive"),
        ({"model_overrides": "{'arch': 'lstm'}"}, "--model-overrides: cannot change arch; leave it out"),
        ({"model_overrides": "{'source_lang': 'zz'}"}, "--model-overrides: cannot change source_lang"),
        (
            {"model_overrides": "{'droput': 1}"},
            "no model, task or criterion has an option droput; did you mean dropout",
        ),
        ({"num_shards": 2, "shard_id": 2}, "--shard-id 2: must be below --num-shards 2"),
        ({"optimizer_overrides": "text"}, "--optimizer-overrides text: give a dictionary"),
        ({"model_overrides": "[" * 5000}, "--model-overrides .*: give a dictionary"),
        ({"model_overrides": "[1]"}, "--model-overrides .*: give a dictionary"),
        (
            {"finetune_from_model": "a.pt", "restore_file": "b.pt"},
            "--finetune-from-model, --restore-file: give one of them",
        ),
        (
            {"finetune_from_model": "a.pt", "reset_optimizer": True},
            "--finetune-from-model: takes only the weights; leave out --reset-optimizer",
        ),
    ],
)
def test_a_value_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message) as caught:
        check_option_values(Namespace(**values))
    assert "\n" not in str(caught.value)
