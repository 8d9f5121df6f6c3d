"""Raw text to tokens and back, and translation of raw text with a pair, from Python and from the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from dual_fairseq.common.errors import UserError
from dual_fairseq.common.folders import find_checkpoint
from dual_fairseq.data.subword import Subword
from dual_fairseq.pair.engine import choose_engine
from dual_fairseq.pair.translator import DualTranslator
from dual_fairseq.plugin.ranking import Weights


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("a . b c", ["a . b c"]),
        ("a . b c d", ["a .", "b c d"]),
        ("a ? ! b . . . c", ["a ? !", "b . . .", "c"]),
        ("a b c d e", ["a b c d", "e"]),
        ("a b c d . e", ["a b c d", ".", "e"]),
        ("a b c@@ d@@ e f", ["a b", "c@@ d@@ e f"]),
        ("a@@ b@@ c@@ d@@ e@@ f", ["a@@ b@@ c@@ d@@", "e@@ f"]),
        (". . . . . . a", [". . . .", ". .", "a"]),
        ("यह है। वह है@@ ।@@ ” Mr. A", ["यह है।", "वह है@@ ।@@ ”", "Mr. A"]),
    ],
    ids="fits sentences signs words late-sign within-no-word long-word signs-over-the-limit sign-at-a-word".split(),
)
def test_where_an_over_long_line_is_cut(tokens, expected):
    assert [" ".join(piece) for piece in Subword("subword_nmt").cut(tokens.split(), 4)] == expected


def test_the_checkpoint_of_a_run_is_that_of_its_last_stage(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint of a pair"):
        find_checkpoint(tmp_path)
    for stage in ("warmup", "mle", "dual"):
        (tmp_path / stage).mkdir()
        for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
            (tmp_path / stage / name).touch()
            assert find_checkpoint(tmp_path / stage) == tmp_path / stage / name
        assert find_checkpoint(tmp_path) == tmp_path / stage / "checkpoint_best.pt"
    assert find_checkpoint(tmp_path / "mle" / "checkpoint_best.pt") == tmp_path / "mle" / "checkpoint_best.pt"
    with pytest.raises(UserError, match="there is no such folder or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")


def test_the_translator_is_found_where_one_looks_for_it():
    import dual_fairseq

    assert dual_fairseq.DualTranslator is DualTranslator
    with pytest.raises(AttributeError, match="DualInterpreter"):
        _ = dual_fairseq.DualInterpreter


def unloaded() -> DualTranslator:
    """A translator of German and English without models."""
    translator = DualTranslator.__new__(DualTranslator)
    translator.languages, translator._choices = ("de", "en"), None
    translator._tasks = {pair: SimpleNamespace(dual_inference=None) for pair in (("de", "en"), ("en", "de"))}
    return translator


@pytest.mark.parametrize("name", ["constraints", "beam_size"])
def test_an_option_that_translation_does_not_have_is_refused(name):
    with pytest.raises(TypeError, match=f"unknown options of translation: {name}"):
        DualTranslator.__new__(DualTranslator).translate_nbest(["a"], **{name: "ordered"})


def test_weights_of_the_other_direction_are_refused(tmp_path):
    """Not passed over without a word."""
    row = {"weights": asdict(Weights(1.0, reverse=0.5)), "lenpen": 0.0}
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"best": "general", "general": row, "target_lang": "en"}))
    translator = unloaded()
    translator._use_dual_inference(file)
    assert translator.chooses("en") and not translator.chooses("de")
    with pytest.raises(UserError, match=r"dual_inference: has weights for translations into en, not de; give"):
        translator.translate_nbest(["a"], target="de")


def test_languages_without_weights_are_refused_unless_plain_search_is_asked_for(tmp_path):
    file = tmp_path / "weights.json"
    row = {"weights": asdict(Weights(1.0, reverse=0.5)), "lenpen": 0.0}
    file.write_text(json.dumps({"best": "general", "general": row, "target_lang": "fr"}))
    for weights in ({"fr": 0.5}, {"en": 0.5, "fr": 0.5}, file):
        with pytest.raises(UserError, match="fr is not a language of this pair"):
            unloaded()._use_dual_inference(weights)
    translator = unloaded()
    translator._use_dual_inference({"de": 0.5})
    with pytest.raises(UserError, match="into de, not en; give weights by language, or None for plain search"):
        translator.translate_nbest(["a"], target="en")
    translator = unloaded()
    translator._use_dual_inference({"de": 0.5, "en": None})
    assert translator.chooses("de") and not translator.chooses("en")


def test_an_engine_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="engine onnx: choose one of fairseq, ctranslate2, auto"):
        choose_engine("onnx", [], SimpleNamespace(), [])
