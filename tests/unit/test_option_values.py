"""What fairseq's own options may be: everything else is refused before any work."""

import pytest
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

from dual_fairseq.common.errors import UserError
from dual_fairseq.compat.option_values import check_option_values


def config(**values):
    cfg = OmegaConf.structured(FairseqConfig)
    for name, value in values.items():
        section, _, option = name.partition("__")
        cfg[section][option] = value
    return cfg


def test_the_defaults_are_taken():
    check_option_values(config())
    check_option_values(config(generation__beam=12, generation__nbest=12, dataset__num_shards=2, dataset__shard_id=1))
    check_option_values(config(checkpoint__finetune_from_model="x.pt", common_eval__model_overrides="{'data': 'x'}"))
    check_option_values(config(checkpoint__restore_file="x.pt", checkpoint__reset_optimizer=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimization__update_freq": [1, 0]}, "--update-freq 0: give a number of at least 1"),
        ({"optimization__update_freq": []}, "--update-freq: holds no number"),
        ({"optimization__lr": []}, "--lr: holds no number"),
        ({"optimization__clip_norm": float("nan")}, "--clip-norm nan: give a number of at least 0"),
        ({"optimization__max_update": -1}, "--max-update -1"),
        ({"dataset__max_tokens": 0}, "--max-tokens 0: give a number of at least 1"),
        ({"dataset__batch_size": -5}, "--batch-size -5"),
        ({"dataset__num_workers": -1}, "--num-workers -1"),
        ({"dataset__required_batch_size_multiple": 0}, "--required-batch-size-multiple 0"),
        ({"dataset__validate_interval": 0}, "--validate-interval 0"),
        ({"checkpoint__save_interval": 0}, "--save-interval 0"),
        ({"common__log_interval": 0}, "--log-interval 0"),
        ({"common__seed": -1}, "--seed -1: give a number of at least 0 and below 2,147,483,648"),
        ({"common__seed": 2**40}, "--seed 1099511627776"),
        ({"generation__beam": 0}, "--beam 0: give a number of at least 1"),
        ({"generation__nbest": 9}, "--nbest 9: needs --beam 9 or more, not 5"),
        ({"generation__max_len_b": -5}, "--max-len-b -5"),
        ({"generation__temperature": 0.0}, "--temperature 0.0: give a number above 0"),
        ({"dataset__num_shards": 2, "dataset__shard_id": 2}, "--shard-id 2: is none of --num-shards 2"),
        ({"checkpoint__optimizer_overrides": "text"}, "--optimizer-overrides text: give a dictionary"),
        ({"common_eval__model_overrides": "[" * 5000}, "--model-overrides .*: give a dictionary"),
        ({"common_eval__model_overrides": "[1]"}, "--model-overrides .*: give a dictionary"),
        (
            {"checkpoint__finetune_from_model": "a.pt", "checkpoint__restore_file": "b.pt"},
            "--finetune-from-model, --restore-file: give one of them",
        ),
        (
            {"checkpoint__finetune_from_model": "a.pt", "checkpoint__reset_optimizer": True},
            "--finetune-from-model: takes the weights alone; leave out --reset-optimizer",
        ),
    ],
)
def test_a_value_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message) as caught:
        check_option_values(config(**values))
    assert "\n" not in str(caught.value)
