"""Validation BLEU is what evaluation gives: by the tokenizer of the target language, or of words as they are."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics

from dual_fairseq.common.bleu import Accuracy, bleu_of_counts
from dual_fairseq.common.errors import UserError
from dual_fairseq.pair.evaluate import score
from dual_fairseq.plugin.validation_bleu import log_bleu, validate_as_target, validation_counts, validation_metric

HYPOTHESES = ["今 天 天 气 很 好 。", "他 在 公 园 里 跑 步 ， 很 快 。", "我 们 明 天 去 北 京 。"]
REFERENCES = ["今 天 天 气 真 好 。", "他 在 公 园 里 跑 步 。", "我 们 明 天 去 上 海 。"]


def side(target: str, tokenized: bool = False, chosen: str | None = None):
    """The task of a direction, whose model translates everything into the hypotheses."""
    dictionary = Dictionary()
    rows = [dictionary.encode_line(line, append_eos=True) for line in [*HYPOTHESES, *REFERENCES]]
    cfg = SimpleNamespace(
        target_lang=target, eval_tokenized_bleu=tokenized, sacrebleu_tokenize=chosen, eval_bleu_print_samples=False,
        eval_bleu_remove_bpe=None,
    )  # fmt: skip
    beams = [[{"tokens": row, "cut_off": n == 1}] for n, row in enumerate(rows[:3])]
    target_rows = torch.nn.utils.rnn.pad_sequence(rows[3:], batch_first=True, padding_value=dictionary.pad())
    task = SimpleNamespace(
        cfg=cfg, tgt_dict=dictionary, tokenizer=None, sequence_generator=None,
        inference_step=lambda generator, models, sample: beams,
    )  # fmt: skip
    return task, {"target": target_rows.long()}


def validated(task, sample) -> tuple[float, int]:
    counts = validation_counts(task, validation_metric(task.cfg), sample, None, "en-zh")
    assert list(counts)[-1] == "cut_off_en-zh"
    return bleu_of_counts(list(counts.values())[:-1]), counts["cut_off_en-zh"]


def test_a_tokenizer_that_is_not_installed_is_said(monkeypatch, caplog):
    task, _ = side("en")
    with caplog.at_level("WARNING", logger="dual_fairseq"):
        validation_metric(task.cfg)
        assert not caplog.text
        monkeypatch.setattr("dual_fairseq.common.bleu.missing_tokenizer", lambda *_: "MeCab is missing")
        validation_metric(task.cfg)
    assert "MeCab is missing" in caplog.text


def test_samples_are_printed_if_asked_for(caplog):
    task, sample = side("zh", tokenized=True)
    with caplog.at_level("INFO", logger="dual_fairseq"):
        validated(task, sample)
        assert "example" not in caplog.text
        task.cfg.eval_bleu_print_samples = True
        validated(task, sample)
    assert (
        f"example hypothesis: {HYPOTHESES[0]}" in caplog.text and f"example reference: {REFERENCES[0]}" in caplog.text
    )


def test_the_mean_of_both_directions_has_two_digits():
    counts = [{f"cut_off_{direction}": 0} for direction in ("x-y", "y-x")]
    of_directions = {}
    for number, (direction, log) in enumerate(zip(("x-y", "y-x"), counts, strict=True)):
        task, sample = side("zh", tokenized=True)
        metric = validation_metric(task.cfg)
        if number:  # other scores
            sample["target"] = sample["target"].flip(0)
        log |= validation_counts(task, metric, sample, None, direction)
        of_directions[direction] = metric
    with metrics.aggregate(new_root=True) as aggregator:
        log_bleu(counts, of_directions)
        values = aggregator.get_smoothed_values()
    assert values["bleu_x-y"] != values["bleu_y-x"]
    assert values["bleu"] == round((values["bleu_x-y"] + values["bleu_y-x"]) / 2, 2)


@pytest.mark.parametrize("code", ["zh", "zh_CN", "zho_Hans"])
def test_chinese_is_scored_as_evaluation_scores_it(code):
    task, sample = side(code)
    task.tokenizer = SimpleNamespace(decode=lambda text: text.replace(" ", ""))
    hypotheses, references = ([line.replace(" ", "") for line in lines] for lines in (HYPOTHESES, REFERENCES))
    expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score
    assert expected > 50 and sacrebleu.corpus_bleu(hypotheses, [references]).score < 1
    assert validated(task, sample) == (pytest.approx(expected), 1)
    assert score(hypotheses, references, code).bleu == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "options", "tokenize"),
    [("en", {}, "13a"), ("zh", {"tokenized": True}, "none"), ("zh", {"tokenized": True, "chosen": "intl"}, "intl"),
     ("zh", {"chosen": "char"}, "char")],
)  # fmt: skip
def test_other_languages_words_as_they_are_and_a_choice(target, options, tokenize):
    task, sample = side(target, **options)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=tokenize).score
    assert validated(task, sample) == (pytest.approx(expected), 1)
    segmented = options.get("tokenized", False)
    assert score(HYPOTHESES, REFERENCES, target, segmented, options.get("chosen")).bleu == pytest.approx(expected)


def test_each_language_is_validated_in_its_own_way():
    ways = '{"zh": {"eval_bleu_remove_bpe": "sentencepiece", "eval_bleu_detok": "space", "eval_tokenized_bleu": true}}'
    of_both = {"eval_bleu_remove_bpe": "@@ ", "eval_bleu_detok": "moses", "eval_tokenized_bleu": False}
    found = {}
    for target in ("en", "zh"):
        cfg = SimpleNamespace(
            source_lang="xx", target_lang=target, eval_bleu_detok_args=None, eval_bleu_by_language=ways, **of_both
        )
        validate_as_target(cfg)
        found[target] = {name: getattr(cfg, name) for name in of_both}
        assert json.loads(cfg.eval_bleu_detok_args)["target_lang"] == target
    assert found == {"en": of_both, "zh": json.loads(ways)["zh"]}
    cfg.eval_bleu_by_language = '{"zh": {"beam": 1}}'
    with pytest.raises(UserError, match="--eval-bleu-by-language: beam is not one of eval_bleu_remove_bpe, "):
        validate_as_target(cfg)


def test_labels_are_validated_by_their_accuracy():
    task, _ = side("label")
    metric = validation_metric(task.cfg, accuracy=True)
    assert isinstance(metric, Accuracy)
    labels = Dictionary()
    rows = [labels.encode_line(label, append_eos=True) for label in ("good", "good", "bad", "good", "bad", "bad")]
    found, right = rows[:3], rows[3:]
    task.tgt_dict = labels
    task.inference_step = lambda generator, models, sample: [[{"tokens": row, "cut_off": False}] for row in found]
    first = validation_counts(task, metric, {"target": torch.stack(right).long()}, None, "x-y")
    second = validation_counts(task, metric, {"target": torch.stack(found).long()}, None, "x-y")
    with metrics.aggregate(new_root=True) as aggregator:
        log_bleu([first, second], {"x-y": metric})
        values = aggregator.get_smoothed_values()
    assert values["accuracy_x-y"] == values["accuracy"] == round(100 * 5 / 6, 2)
    assert not [name for name in values if name.startswith("bleu")]
