"""Dual inference: what is printed, and that what is printed is what is ranked by."""

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.dataclass.configs import GenerationConfig

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.dual_inference import check_pure
from dual_fairseq.plugin.extra_lines import LinePrinter
from dual_fairseq.plugin.ranking import Weights, weights_of_options


def test_alpha_is_the_formula_of_the_paper():
    forward, reverse, lm, source_lm, length = -3.0, -5.0, -7.0, -6.0, 4.0
    components = np.array([forward, reverse, lm, source_lm, length])
    for alpha in (0.0, 0.3, 1.0):
        expected = alpha * forward + (1 - alpha) * (reverse + lm - source_lm)
        assert Weights.of_alpha(alpha).score(components, 0.0) == pytest.approx(expected)
        assert Weights.of_alpha(alpha).score(components, 1.5) == pytest.approx(expected / length**1.5)
    assert Weights.of_alpha(1.0).plain and not Weights.of_alpha(0.99).plain


def test_the_general_form_and_components_that_could_not_be_computed():
    components = np.array([[-3.0, -5.0, -7.0, np.nan, 4.0], [-1.0, np.nan, -1.0, np.nan, 9.0]])
    scores = Weights(1.0, reverse=0.5, lm=0.25, length=2.0).score(components, 0.0)
    assert scores[0] == pytest.approx(-3 - 2.5 - 1.75 + 8) and scores[1] == -np.inf
    # what has no weight does not count
    assert Weights(1.0, lm=1.0).score(components, 0.0) == pytest.approx([-10, -2])


def test_a_beam_that_is_scored_by_more_than_the_model_is_refused():
    check_pure(GenerationConfig())
    check_pure(GenerationConfig(diversity_rate=0.0))
    impure = {"unkpen": 2.0, "temperature": 0.5, "lm_path": "lm.pt", "diverse_beam_groups": 2, "diversity_rate": 0.5}
    for name, value in impure.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {value}: .* leave it out"):
            check_pure(GenerationConfig(**{name: value}))
    with pytest.raises(UserError, match="--match-source-len: changes"):
        check_pure(GenerationConfig(match_source_len=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((1.5, None, None, None), "--dual-inference-alpha 1.5: give a number from 0 to 1"),
        ((float("nan"), None, None, None), "--dual-inference-alpha nan"),
        ((0.5, None, 0.3, None), "either α or the weights"),
        ((None, float("inf"), None, None), "--dual-inference-reverse-weight inf: give a finite number"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        weights_of_options(*options)


def test_options():
    assert weights_of_options(None, None, None, None) is None
    assert weights_of_options(0.25, None, None, None) == Weights(0.25, 0.75, 0.75, -0.75, 0.0)
    assert weights_of_options(None, 0.5, None, 2.0) == Weights(1.0, 0.5, 0.0, 0.0, 2.0)


def test_sentences_of_the_input_are_numbered_in_order(capsys):
    printer = LinePrinter(Dictionary())
    a, b, long = torch.tensor([4, 2]), torch.tensor([5, 2]), torch.tensor([6, 4, 2])

    def printed(*sentences):
        rows = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=1, padding_side="left")
        beams = [[{"components": np.array([-1.0, 0, 0, 0, len(s)])}] * 3 for s in sentences]
        printer.print({"net_input": {"src_tokens": rows}}, beams)
        return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]

    printer.expect([a, b, a, long])
    assert printed(b, long, a) == ["R-1", "R-3", "R-0"] and printed(a) == ["R-2"]
    printer.expect([b])
    assert printed(b) == ["R-4"]
    printer.set_up(2, None)
    printer.expect([a])
    assert printed(a) == ["R-5", "R-5"]


def test_a_translation_that_the_limit_of_its_length_ended_has_a_line_with_its_rank(capsys):
    printer = LinePrinter(Dictionary())
    printer.set_up(2, None)
    beams = [[{"cut_off": False}, {"cut_off": True}, {"cut_off": True}], [{"cut_off": True}], [{}]]
    printer.print({"id": torch.tensor([4, 0, 9])}, beams)
    assert capsys.readouterr().out == "L-4\t2\nL-0\t1\n"
