"""Scores are those of sacreBLEU on detokenised text in the order of the split."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from helpers import SOURCE, TARGET, sentence_pairs

from dual_fairseq.__main__ import main
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.tables import score_table
from dual_fairseq.pair import evaluate as evaluation


def generated(tokens: list[str], seed: int = 0, skip: tuple[int, ...] = ()) -> str:
    """Text such as fairseq-generate prints: log lines, then a block a sentence, in another order."""
    order = [n for n in range(len(tokens)) if n not in skip]
    random.Random(seed).shuffle(order)
    lines = ["2026-01-01 00:00:00 | INFO | fairseq_cli.generate | loading model(s) from H-0.pt"]
    for n in order:
        lines += [f"S-{n}\tsource {n}", f"T-{n}\tH-{n}\treference", f"H-{n}\t-0.{n}1\t{tokens[n]}"]
        lines += [f"H-{n}\t-9.5\tsecond best", f"D-{n}\t-0.{n}1\tdetokenised", f"P-{n}\t-0.1 -0.2"]
    return "\n".join([*lines, "Generate test with beam=5: BLEU4 = 1.00", ""])


VALIDATION = (
    "DEBUG:hydra.core.utils:Setting JobRuntime:name=utils\n"
    '2026-01-01 00:00:00 | INFO | {split} | {{"epoch": null, "{split}_loss": "7.1", '
    f'"{{split}}_nll_loss_{SOURCE}-{TARGET}": "5.25", "{{split}}_nll_loss_{TARGET}-{SOURCE}": "4.5"{{more}}}}}}\n'
)


@pytest.fixture
def evaluated(corpus, tmp_path) -> tuple[Path, Path, list[tuple[str, str]]]:
    """A DEST, an output folder with a perfect translation of the test split, and the split itself."""
    dest, out = tmp_path / "dest", tmp_path / "out"
    (dest / "raw").mkdir(parents=True)
    out.mkdir()
    (dest / "dual").symlink_to(corpus / "dual")
    (dest / "preprocess.json").write_text(
        json.dumps({"source": SOURCE, "target": TARGET, "tokenizer": "none", "subword": "bpe"})
    )
    pairs = sentence_pairs(16, 3)
    for index, language in enumerate((SOURCE, TARGET)):
        (dest / "raw" / f"test.{language}").write_text("".join(pair[index] + "\n" for pair in pairs))
    (out / f"{SOURCE}-{TARGET}.generate.txt").write_text(generated([target for _, target in pairs]))
    (out / f"{TARGET}-{SOURCE}.generate.txt").write_text(generated([source for source, _ in pairs]))
    (out / "validate.txt").write_text(VALIDATION.format(split="test", more=', "test_gap_abs": "3.5"'))
    return dest, out, pairs


def test_hypotheses_are_found_by_number_and_the_best_of_each_counts():
    tokens = [f"word{n} ." for n in range(12)]
    hypotheses = evaluation.read_hypotheses(generated(tokens, skip=(3,)).split("\n"))
    assert hypotheses == {n: tokens[n] for n in range(12) if n != 3}


def test_a_perfect_translation_scores_100_and_its_files_are_aligned(evaluated):
    dest, out, pairs = evaluated
    result = evaluation.evaluate(dest, out, "test")
    assert json.loads((out / "scores.json").read_text()) == result
    forward, reverse = result[f"{SOURCE}-{TARGET}"], result[f"{TARGET}-{SOURCE}"]
    for scores in (forward, reverse):
        assert scores["bleu"] == pytest.approx(100)
        assert (scores["sentences"], scores["untranslated"], scores["length_ratio"]) == (16, 0, 1.0)
    assert (forward["nll_bits_per_token"], reverse["nll_bits_per_token"], result["gap_abs"]) == (5.25, 4.5, 3.5)
    for name, index in (("src", 0), ("hyp", 1), ("ref", 1)):
        lines = (out / f"{SOURCE}-{TARGET}.{name}.txt").read_text().splitlines()
        assert lines == [pair[index] for pair in pairs]


def test_what_was_not_translated_counts_as_empty(evaluated, capsys):
    dest, out, pairs = evaluated
    (out / f"{SOURCE}-{TARGET}.generate.txt").write_text(generated([target for _, target in pairs], skip=(0, 7)))
    scores = evaluation.evaluate(dest, out, "test")[f"{SOURCE}-{TARGET}"]
    assert scores["untranslated"] == 2
    assert scores["length_ratio"] < 1 and scores["bleu"] < 100
    assert "2 of 16 sentences were not translated" in capsys.readouterr().out
    assert (out / f"{SOURCE}-{TARGET}.hyp.txt").read_text().split("\n")[7] == ""


def test_what_the_limit_of_length_ended_is_counted_and_said(evaluated, capsys):
    dest, out, _ = evaluated
    file = out / f"{SOURCE}-{TARGET}.generate.txt"
    file.write_text("L-3\t1\nL-3\t2\nL-11\t1\nL-7\t2\n" + file.read_text())
    scores = evaluation.evaluate(dest, out, "test")
    assert (scores[f"{SOURCE}-{TARGET}"]["cut_off"], scores[f"{TARGET}-{SOURCE}"]["cut_off"]) == (2, 0)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "limit" in line]
    assert said.startswith(f"{SOURCE}-{TARGET}: 2 of 16 translations were cut off at the length limit")


def test_without_language_models_there_is_no_gap(evaluated):
    dest, out, _ = evaluated
    (out / "validate.txt").write_text(VALIDATION.format(split="test", more=""))
    assert "gap_abs" not in evaluation.evaluate(dest, out, "test")


def test_references_of_another_length_are_refused(evaluated):
    dest, out, _ = evaluated
    for language in (SOURCE, TARGET):
        with open(dest / "raw" / f"test.{language}", "a") as file:
            file.write("one more\n")
    with pytest.raises(UserError, match=r"run dual-fairseq preprocess again"):
        evaluation.evaluate(dest, out, "test")


def test_a_validation_that_printed_nothing_is_refused(evaluated):
    dest, out, _ = evaluated
    (out / "validate.txt").write_text("Killed\n")
    with pytest.raises(UserError, match="fairseq-validate printed no result for split 'test'"):
        evaluation.evaluate(dest, out, "test")


def test_the_table_has_a_line_for_each_direction_and_stage(evaluated):
    dest, out, _ = evaluated
    scores = evaluation.evaluate(dest, out, "test")
    lines = score_table([("warm start", scores), ("dual", scores)]).splitlines()
    bleu, chrf = (scores[f"{SOURCE}-{TARGET}"][f"{name}_signature"] for name in ("bleu", "chrf"))
    assert "|tok:none|" in bleu  # the words of others are scored as they are
    assert lines[5:] == [f"BLEU {bleu}", f"chrF {chrf}"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        [f"{SOURCE}-{TARGET}", "warm"],
        [f"{SOURCE}-{TARGET}", "dual"],
        [f"{TARGET}-{SOURCE}", "warm"],
        [f"{TARGET}-{SOURCE}", "dual"],
    ]
    assert lines[2].split() == [f"{SOURCE}-{TARGET}", "dual", "100.00", "100.00", "1.000", "5.250", "3.50"]


def test_the_step_writes_the_scores_and_prints_them(evaluated, capsys):
    dest, out, _ = evaluated
    main(["pair.evaluate", str(dest), str(out), "--setting=beam=5"])
    scores = json.loads((out / "scores.json").read_text())
    assert capsys.readouterr().out == score_table([("test", scores)]) + "\n"
    assert (scores["engine"], scores["beam"]) == ("fairseq-generate", "5")


def test_the_scores_name_the_engine_that_translated(evaluated):
    dest, out, _ = evaluated
    for file in out.glob("*.generate.txt"):
        file.write_text("a warning\nengine: ctranslate2 4.5.0, int8\n" + file.read_text())
    scores = evaluation.evaluate(dest, out, "test", settings={"beam": "5"})
    assert scores["engine"] == "ctranslate2 4.5.0, int8"
    assert "Search: beam 5, engine ctranslate2 4.5.0, int8\n" in score_table([("test", scores)])
