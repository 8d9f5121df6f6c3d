"""A side that is tags, one for each word: what is refused, accuracy, and translations of the source's length."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.configs import GenerationConfig
from helpers import TINY, configuration

from dual_fairseq.common.bleu import Accuracy, bleu_counts, bleu_of_counts
from dual_fairseq.common.errors import UserError
from dual_fairseq.data.labels import check_tags
from dual_fairseq.data.options import parse
from dual_fairseq.pair.evaluate import score
from dual_fairseq.pair.nbest import NBest
from dual_fairseq.pair.tune import tune
from dual_fairseq.plugin.generator import DirectionTask
from dual_fairseq.plugin.log_probs import translation_log_probs


def tagged(folder: Path, *more: str, text: str = "a dog\n", tags: str = "D N\n") -> Namespace:
    for split in ("train", "valid"):
        (folder / f"{split}.x").write_text(text)
        (folder / f"{split}.y").write_text(tags)
    files = [word for split in ("train", "valid") for word in (f"--{split}", str(folder / split))]
    return parse([*files, "-s", "x", "-t", "y", "--target-subword", "tag", "--dest", str(folder / "dest"), *more])


def test_the_text_of_tags_is_its_words(tmp_path):
    options = tagged(tmp_path)
    assert options.subword == {"x": "word", "y": "tag"} and options.tokenizer == {"x": "none", "y": "none"}
    assert options.vocab_threshold == {"x": 2, "y": 0} and options.vocab_size == {"x": 30_000, "y": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--source-subword bpe", "--target-subword tag: each word of x has a tag, .*give --source-subword word and "),
        ("--source-tokenizer moses", "--target-subword tag: .* and --source-tokenizer none$"),
        ("--tokenizer moses", "--target-subword tag: .* and --source-tokenizer none$"),
        ("--source-subword tag", "--source-subword tag: .*give --target-subword word"),
        ("--source-subword label", "--target-subword tag: .*give --source-subword word"),
        ("--target-tokenizer moses", "--target-tokenizer moses: tags are not tokenised; leave it out"),
    ],
)
def test_other_tokens_than_words_are_refused(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        tagged(tmp_path, *options.split())


def test_each_word_has_one_tag(tmp_path):
    def check(text: str, tags: str) -> None:
        options = tagged(tmp_path, text=text, tags=tags)
        check_tags(options, {"train": [[tmp_path / "train.x", tmp_path / "train.y"]]})

    check("a dog\nbad \x01 line\n a&nbsp;cat\n", "D N\nA\nD  N\n")  # counted after cleaning
    with pytest.raises(UserError, match=r"train.x and .*train.y: line 2: 2 and 1 words; give each word one tag"):
        check("a dog\na cat\n", "D N\nN\n")


def test_accuracy_is_the_share_of_words_that_are_right():
    references, hypotheses = ["D N N", "D N", "N N"], ["D N V", "N D", "N N"]
    metric = Accuracy()
    assert metric.corpus_score(hypotheses, [references]).score == pytest.approx(100 * 4 / 7)
    counts = [bleu_counts(metric.corpus_score([h], [[r]])) for h, r in zip(hypotheses, references, strict=True)]
    assert bleu_of_counts(np.sum(counts, axis=0).tolist()) == pytest.approx(100 * 4 / 7)
    scores = score(hypotheses, references, "y", subword="tag")
    assert scores.accuracy == pytest.approx(100 * 4 / 7) and scores.bleu is None and scores.length_ratio == 1
    assert scores.confusion == {"N": {"N": 3, "V": 1, "D": 1}, "D": {"D": 1, "N": 1}}


def test_the_length_has_no_weight():
    """Tags of a sentence have one length, though sentences differ; a list may be shorter than the others."""
    random = np.random.default_rng(1)
    components = random.normal(size=(40, 3, 5))
    components[..., 4] = random.integers(2, 9, size=(40, 1))
    components[0, 2] = np.nan
    result = tune(NBest([["N", "V", "D"]] * 40, components), ["V"] * 40, "y", 1.0, Accuracy())
    assert result["general"]["weights"]["length"] == 0.0 and result["lenpen"]["lenpen"] == 1.0


@pytest.mark.parametrize("arch", ["transformer", "lstm"])
@pytest.mark.parametrize("tags", [1, 12])
def test_tags_have_the_length_of_their_text_and_a_true_score(arch, tags):
    text, names = Dictionary(), Dictionary()
    for i in range(20):
        text.add_symbol(f"w{i}")
    for i in range(tags):
        names.add_symbol(f"t{i}")
    cfg = configuration("data", "--task", "translation", "-s", "x", "-t", "y", *TINY[arch])
    torch.manual_seed(1)
    task = DirectionTask(cfg.task, text, names)
    task.labels, task.tags = [], [*range(4, 4 + tags)]
    model = task.build_model(cfg.model).eval()
    sentences = [torch.cat([torch.randint(4, 24, (n,)), torch.tensor([2])]) for n in (2, 9, 1, 5)]
    data = LanguagePairDataset(sentences, [*map(len, sentences)], text, tgt_dict=names, shuffle=False)
    sample = data.collater([data[i] for i in range(len(sentences))])
    generator = task.build_generator([model], GenerationConfig(beam=4, lenpen=0.0, max_len_b=3, min_len=2))
    for i, hypotheses in zip(sample["id"].tolist(), generator.generate([model], sample), strict=True):
        assert hypotheses and all(len(h["tokens"]) == len(sentences[i]) and not h["cut_off"] for h in hypotheses)
        found = [h["tokens"] for h in hypotheses]
        assert all(set(tokens[:-1].tolist()) <= {*task.tags} for tokens in found)  # no <s> or <unk>
        true = translation_log_probs([model], [sentences[i]] * len(found), found, names)
        assert [float(h["score"]) for h in hypotheses] == pytest.approx(true.tolist(), abs=1e-4)
