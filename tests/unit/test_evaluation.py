"""Scores are those of sacreBLEU on detokenised text in the order of the split."""

from __future__ import annotations

import importlib.util

import pytest
import sacrebleu

from dual_fairseq.common.bleu import (
    bleu_metric,
    bleu_tokenizer,
    metric_of_signature,
    missing_tokenizer,
    signature_of,
)
from dual_fairseq.common.errors import UserError
from dual_fairseq.data.tokenizer import detokenize
from dual_fairseq.pair import evaluate as evaluation


def test_an_empty_hypothesis_is_read():
    assert evaluation.read_hypotheses(["H-0\t-inf\t"]) == {0: ""}


@pytest.mark.parametrize(
    ("language", "tokens", "text"),
    [
        (
            "en",
            "it &apos;s a &quot; well @-@ known &quot; test , isn &apos;t it ?",
            "it's a \"well-known\" test, isn't it?",
        ),
        ("fr", "l&apos; homme n&apos; est pas là .", "l'homme n'est pas là."),
        ("de", "das ist &amp; bleibt ein Test .", "das ist & bleibt ein Test."),
        ("fra_Latn", "l&apos; homme n&apos; est pas là .", "l'homme n'est pas là."),
        ("fr_FR", "Pourquoi ?", "Pourquoi ?"),
        ("eng_Latn", "it &apos;s Anna &apos;s dog .", "it's Anna's dog."),
    ],
)
def test_moses_tokens_are_detokenized_for_their_language(language, tokens, text):
    assert detokenize([tokens], language, "moses") == [text]
    assert detokenize([tokens], language, "none") == [tokens]


def test_scores_are_those_of_sacrebleu():
    references = ["The cat sat on the mat.", "It's raining; we stay at home."]
    hypotheses = ["The cat sat on a mat.", "It's raining and we stay at home!"]
    scores = evaluation.score(hypotheses, references, "en")
    assert scores.bleu == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert scores.chrf == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert scores.bleu_signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores.chrf_signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert scores.length_ratio == 16 / 16


def test_scores_are_cased():
    assert evaluation.score(["the cat sat on the mat"], ["The Cat Sat On The Mat"], "en").bleu < 50


def test_chinese_is_scored_by_characters_and_a_given_tokenizer_wins():
    assert "tok:zh" in evaluation.score(["今天天气很好"], ["今天天气真好"], "zh").bleu_signature
    assert "tok:char" in evaluation.score(["今天天气很好"], ["今天天气真好"], "zh", tokenize="char").bleu_signature


def test_a_missing_japanese_tokenizer_is_replaced_and_said():
    if importlib.util.find_spec("MeCab"):
        pytest.skip("MeCab is installed")
    for code in ("ja", "ja_JP", "jpn_Jpan"):
        assert "tok:char" in evaluation.score(["猫です"], ["犬です"], code).bleu_signature
        assert "sacrebleu[ja]" in missing_tokenizer(code)
    assert missing_tokenizer("ja", segmented=True) == missing_tokenizer("ja", chosen="char") == ""
    with pytest.raises(UserError, match="--sacrebleu-tokenize ja-mecab"):
        evaluation.score(["猫です"], ["犬です"], "ja", tokenize="ja-mecab")
    with pytest.raises(UserError, match="tokenizer ja-mecab"):
        metric_of_signature("nrefs:1|case:mixed|eff:no|tok:ja-mecab-0.996-IPA|smooth:exp|version:2.6.0")


@pytest.mark.parametrize("name", ["spm", "flores101", "flores200", "spBLEU-1K"])
def test_the_tokenizer_of_a_record_downloads_nothing(name, monkeypatch, tmp_path):
    def download(*arguments):
        raise AssertionError("a download")

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.download_file", download)
    monkeypatch.setattr("dual_fairseq.common.bleu.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(UserError, match=f"{name}: its model is not on this machine; run dual-fairseq evaluate"):
        metric_of_signature(f"nrefs:1|case:mixed|eff:no|tok:{name}|smooth:exp|version:2.6.0")


def test_an_unknown_tokenizer_is_refused_with_the_choice():
    with pytest.raises(UserError, match="--sacrebleu-tokenize moses: choose one of 13a, char"):
        bleu_metric("en", chosen="moses")


@pytest.mark.parametrize(
    ("code", "tokenizer"),
    [("zh", "zh"), ("zh_CN", "zh"), ("zho_Hans", "zh"), ("zho_Hant", "zh"), ("cmn", "zh"), ("yue_Hant", "zh"),
     ("lzh_Hani", "zh"), ("wuu", "zh"), ("nan", "zh"),
     ("en", "13a"), ("eng_Latn", "13a"), ("th", "char"), ("lao_Laoo", "char"), ("my", "13a"), ("sw", "13a")],
)  # fmt: skip
def test_the_language_of_a_code_chooses_the_tokenizer_and_segmented_text_is_scored_as_it_is(code, tokenizer):
    assert bleu_tokenizer(code) == tokenizer
    assert bleu_tokenizer(code, segmented=True) == "none"
    assert bleu_tokenizer(code, segmented=True, chosen="intl") == "intl"
    signature = signature_of(bleu_metric(code))
    assert signature_of(metric_of_signature(signature)) == signature
