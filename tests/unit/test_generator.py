"""A translation does not depend on the other sentences of its batch, and what a limit ended is known."""

from __future__ import annotations

import logging
from argparse import Namespace

import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.configs import GenerationConfig
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks.translation import TranslationTask
from helpers import TINY, configuration
from omegaconf import OmegaConf

from dual_fairseq.common.errors import UserError
from dual_fairseq.plugin.generator import CutOff, DirectionTask, _BySentence

SMALL = "--encoder-embed-dim 16 --decoder-embed-dim 16"
ARCHS = {
    "transformer": TINY["transformer"],
    "lstm": TINY["lstm"],
    "fconv": f"--arch fconv {SMALL} --encoder-layers [(16,3)]*2 --decoder-layers [(16,3)]*2".split(),
    "rnnsearch": f"--arch rnnsearch {SMALL} --encoder-hidden-size 16 --decoder-hidden-size 16".split(),
}
LENGTHS = (3, 5, 9, 17)


def task_and_model(name: str):
    dictionary = Dictionary()
    for i in range(20):
        dictionary.add_symbol(f"w{i}")
    cfg = configuration("data", "--task", "translation", "-s", "a", "-t", "b", *ARCHS[name])
    task = DirectionTask(cfg.task, dictionary, dictionary)
    torch.manual_seed(1)
    model = task.build_model(cfg.model).eval()
    for parameter in model.parameters():  # so that translations differ and do not end by themselves
        parameter.data.mul_(3)
    return task, model


def translate(task, model, sources, generator, **more) -> list[list[tuple[list[int], float]]]:
    data = LanguagePairDataset(
        sources, [len(source) for source in sources], task.source_dictionary, tgt_dict=task.target_dictionary,
        left_pad_source=task.cfg.left_pad_source, shuffle=False,
    )  # fmt: skip
    sample = data.collater([data[i] for i in range(len(sources))])
    found = task.inference_step(generator, [model], sample, **more)
    results = {}
    for i, hypotheses in zip(sample["id"].tolist(), found, strict=True):
        results[i] = [(h["tokens"].tolist(), pytest.approx(float(h["score"]), rel=1e-4)) for h in hypotheses]
    return [results[i] for i in range(len(sources))]


def sources(task) -> list[torch.Tensor]:
    seeded, eos = torch.Generator().manual_seed(2), task.source_dictionary.eos()
    words = [torch.randint(4, len(task.source_dictionary), (length,), generator=seeded) for length in LENGTHS]
    return [torch.cat([word, torch.tensor([eos])]) for word in words]


GENERATION = {
    "beam": {"beam": 4, "max_len_a": 1.0, "max_len_b": 2},
    "no-slope": {"beam": 4, "max_len_a": 0.0, "max_len_b": 4},
    "short": {"beam": 3, "max_len_a": 0.3, "max_len_b": 0},
    "repeats": {"beam": 3, "max_len_a": 1.2, "max_len_b": 1, "no_repeat_ngram_size": 1},
}


@pytest.mark.parametrize("options", GENERATION.values(), ids=GENERATION)
@pytest.mark.parametrize("arch", ARCHS)
def test_alone_and_beside_longer_sentences(arch, options):
    task, model = task_and_model(arch)
    generator = task.build_generator([model], GenerationConfig(**options))
    texts = sources(task)
    together = translate(task, model, texts, generator)
    for text, of_batch in zip(texts, together, strict=True):
        assert translate(task, model, [text], generator) == [of_batch]
        bound = max(1, int(options["max_len_a"] * len(text) + options["max_len_b"]))
        assert of_batch and max(len(tokens) for tokens, _ in of_batch) <= bound + 1  # </s>
    if arch == "transformer" and "repeats" not in options:  # the bound is what ends them, so that it matters
        assert any(len(tokens) > 1 for tokens, _ in together[-1])
        plain = TranslationTask.build_generator(task, [model], GenerationConfig(**options))
        assert isinstance(plain, SequenceGenerator)
        stock = translate(task, model, texts, plain)
        assert stock != together or options["max_len_a"] == 0.0
        assert stock[-1] == together[-1]  # the longest sentence has the bound that fairseq gives it


@pytest.mark.parametrize("arch", ARCHS)
def test_where_no_bound_is_met_the_translations_are_fairseq_s(arch):
    task, model = task_and_model(arch)
    options = {"beam": 4, "max_len_a": 2.0, "max_len_b": 40}
    own = translate(task, model, sources(task), task.build_generator([model], GenerationConfig(**options)))
    plain = TranslationTask.build_generator(task, [model], GenerationConfig(**options))
    theirs = translate(task, model, sources(task), plain)
    for source, mine, stock in zip(sources(task), own, theirs, strict=True):
        if max(len(tokens) for tokens, _ in stock) < 2 * len(source) + 40:
            assert mine == stock


def test_a_prefix_longer_than_the_bound():
    task, model = task_and_model("transformer")
    generator = task.build_generator([model], GenerationConfig(beam=3, max_len_a=0.0, max_len_b=9))
    generator.max_len_b = 2
    prefix = torch.full((len(LENGTHS), 2), 7)
    texts = sources(task)
    data = LanguagePairDataset(texts, [len(t) for t in texts], task.source_dictionary, shuffle=False)
    sample = data.collater([data[i] for i in range(len(texts))])
    for hypotheses in task.inference_step(generator, [model], sample, prefix_tokens=prefix):
        assert hypotheses and all(h["tokens"].tolist() == [7, 7, task.target_dictionary.eos()] for h in hypotheses)


def raw(task, model, sources, generator) -> list[list[dict]]:
    """The hypotheses of each source, as fairseq has them."""
    data = LanguagePairDataset(
        sources, [len(source) for source in sources], task.source_dictionary, tgt_dict=task.target_dictionary,
        left_pad_source=task.cfg.left_pad_source, shuffle=False,
    )  # fmt: skip
    sample = data.collater([data[i] for i in range(len(sources))])
    found = task.inference_step(generator, [model], sample)
    return [hypotheses for _, hypotheses in sorted(zip(sample["id"].tolist(), found, strict=True), key=lambda x: x[0])]


@pytest.mark.parametrize("arch", ["transformer", "rnnsearch"])
def test_what_the_limit_ended_is_marked_and_nothing_else(arch):
    task, model = task_and_model(arch)
    texts = sources(task)
    free = raw(task, model, texts, task.build_generator([model], GenerationConfig(beam=1, max_len_a=0, max_len_b=90)))
    lengths = [len(hypotheses[0]["tokens"]) - 1 for hypotheses in free]
    unsure = [float(hypotheses[0]["positional_scores"][-1].exp()) < 0.5 for hypotheses in free]  # of </s> after these
    assert [hypotheses[0]["cut_off"] for hypotheses in free] == [length == 90 for length in lengths]
    for length in {5, *lengths} - {0}:
        generator = task.build_generator([model], GenerationConfig(beam=1, max_len_a=0, max_len_b=length))
        for text, own, no_end in zip(raw(task, model, texts, generator), lengths, unsure, strict=True):
            assert text[0]["cut_off"] == (own > length or (own == length and no_end))


def test_the_positions_of_the_model_are_a_limit_too():
    task, model = task_and_model("transformer")
    generator = task.build_generator([model], GenerationConfig(beam=1, max_len_a=0, max_len_b=90))
    generator.max_len = 12
    for (hypothesis,) in raw(task, model, sources(task), generator):
        assert hypothesis["cut_off"] == (len(hypothesis["tokens"]) == 12)
    assert any(h["cut_off"] for (h,) in raw(task, model, sources(task), generator))


def test_the_limit_is_that_of_the_training_text_unless_an_option_says_otherwise(tmp_path):
    task, model = task_and_model("transformer")
    task.cfg.data = str(tmp_path)
    (tmp_path / "lengths.json").write_text('{"a-b": {"ratio": 0.5, "max_len_a": 0.75, "max_len_b": 21}}')

    def limit(args) -> tuple[float, int]:
        generator = task.build_generator([model], args)
        return generator.max_len_a, generator.max_len_b

    assert limit(GenerationConfig()) == limit(Namespace(beam=2)) == (0.75, 21)  # of a command, and of --eval-bleu-args
    assert limit(OmegaConf.structured(GenerationConfig())) == (0.75, 21)
    assert limit(GenerationConfig(max_len_b=30)) == (0, 30)
    assert limit(GenerationConfig(max_len_a=2, max_len_b=5)) == (2, 5)


def test_the_tokenizer_of_fairseq_interactive_goes_by_the_language_of_the_code():
    task, _ = task_and_model("lstm")
    args = OmegaConf.create({"_name": "moses", "source_lang": "eng_Latn", "target_lang": "fra_Latn",
                             "moses_no_dash_splits": False, "moses_no_escape": False})  # fmt: skip
    tokenizer = task.build_tokenizer(args)
    assert tokenizer.encode("It's Anna's") == "It &apos;s Anna &apos;s"
    assert tokenizer.decode("l&apos; homme") == "l'homme" and args.source_lang == "eng_Latn"
    assert task.build_tokenizer(None) is None


def test_a_command_says_at_its_end_how_many_translations_were_cut_off(caplog):
    counter = CutOff()
    counter.count([[{"cut_off": True}, {"cut_off": False}], [{"cut_off": False}, {"cut_off": True}], [{}]])
    counter.count([[{"cut_off": True}], []])  # the last one has no hypothesis
    with caplog.at_level(logging.WARNING, logger="dual_fairseq"):
        del counter
    assert "2 of 4 translations were cut off at the length limit" in caplog.text
    caplog.clear()
    counter = CutOff()
    counter.count([[{"cut_off": False}]])
    del counter
    assert not caplog.text


def test_a_model_that_gives_no_word_a_probability_is_one_line(monkeypatch):
    def fails(*_args, **_kwargs):
        raise AssertionError("29 < 29")  # as fairseq says it, of any length

    monkeypatch.setattr(SequenceGenerator, "_generate", fails)
    with pytest.raises(UserError, match="the model's probabilities are not finite"):
        object.__new__(_BySentence)._generate({})
