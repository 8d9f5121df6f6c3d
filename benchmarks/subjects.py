"""What the training benchmark times: plain runs and pairs, built by fairseq's own trainer on generated data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.modules import FairseqDropout
from fairseq.trainer import Trainer

import dual_fairseq
from dual_fairseq.compat import dropout, matmul

dual_fairseq.register()

SOURCE, TARGET = "xx", "yy"
_EOS, _SPECIALS = 2, 4


@dataclass(frozen=True)
class Corpus:
    """Generated sentence pairs.

    Args:
        pairs: their number.
        vocabulary: symbols of each language, special ones included.
        length: mean number of tokens of a sentence, ``</s>`` included.
        spread: standard deviation of the logarithm of the length; 0 makes all sentences equally long.
    """

    pairs: int
    vocabulary: int
    length: float
    spread: float = 0.35

    def write(self, directory: Path) -> Path:
        """Binarize it as ``fairseq-preprocess`` would, for both directions and for language models.

        Tokens follow Zipf's law; a target is about as long as its source. The same corpus is the same bytes each time.

        Returns:
            the directory
        """
        directory.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(1)
        frequency = 1 / np.arange(1, self.vocabulary - _SPECIALS + 1)
        cumulative = np.cumsum(frequency / frequency.sum())
        for language in (SOURCE, TARGET):
            dictionary = Dictionary()
            for i in range(self.vocabulary - _SPECIALS):
                dictionary.add_symbol(f"{language}{i}")
            dictionary.save(str(directory / "lm" / language / "dict.txt"))
            dictionary.save(str(directory / f"dict.{language}.txt"))
        dtype = np.uint16 if self.vocabulary < 65_500 else np.int32
        log_length = np.log(self.length) - self.spread**2 / 2
        sources = rng.lognormal(log_length, self.spread, self.pairs)
        lengths = {SOURCE: sources, TARGET: sources * rng.lognormal(0, self.spread / 3, self.pairs)}
        for language, of_sentences in lengths.items():
            sizes = np.clip(np.rint(of_sentences), 2, 1000).astype(np.int64)
            prefix = str(directory / f"train.{SOURCE}-{TARGET}.{language}")
            builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
            step = 100_000
            for start in range(0, self.pairs, step):
                part = sizes[start : start + step]
                tokens = np.searchsorted(cumulative, rng.random(part.sum())).clip(0, len(cumulative) - 1) + _SPECIALS
                ends = np.cumsum(part)
                tokens[ends - 1] = _EOS
                for sentence in np.split(tokens, ends[:-1]):
                    builder.add_item(torch.from_numpy(sentence))
            builder.finalize(f"{prefix}.idx")
        (directory / "done").touch()
        return directory


@dataclass(frozen=True)
class Shape:
    """Two Transformers of one size and how they are trained.

    Args:
        layers, width: of encoder and of decoder each; the feed-forward layers are 4 times as wide.
        max_tokens: padded tokens of the longer side of a batch.
        max_sentences: pairs of a batch, at most.
    """

    layers: int
    width: int
    max_tokens: int
    max_sentences: int

    def options(self) -> list[str]:
        sizes: list[object] = []
        heads = heads_of(self.width)
        for part in ("encoder", "decoder"):
            sizes += [f"--{part}-layers", self.layers, f"--{part}-embed-dim", self.width]
            sizes += [f"--{part}-ffn-embed-dim", 4 * self.width, f"--{part}-attention-heads", heads]
        sizes += ["--max-tokens", self.max_tokens, "--batch-size", self.max_sentences]
        return [str(s) for s in ("--arch", "transformer", "--share-decoder-input-output-embed", *sizes)]


def heads_of(width: int) -> int:
    """Heads of 64 dimensions each, as in Transformer-base, but no fewer than two."""
    return max(2, width // 64)


def trainer(data: Path, *arguments: object, device: str, precision: str = "fp32") -> tuple[Trainer, Any]:
    """fairseq's trainer for these options of ``fairseq-train``, and its task."""
    command = [str(data), "--optimizer", "adam", "--lr", "1e-4", "--clip-norm", "1", "--disable-validation"]
    command += ["--no-save", "--num-workers", "0", "--required-batch-size-multiple", "1", *map(str, arguments)]
    command += ["--cpu"] if device == "cpu" else []
    command += [] if precision == "fp32" else [f"--{precision}"]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), command))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    built = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    built.get_num_updates()
    return built, task


class Subject:
    """One kind of run: it collates a batch of the given pairs and makes one update with each of its trainers.

    Args:
        trainers: with their tasks.
    """

    def __init__(self, trainers: Iterable[tuple[Trainer, Any]]) -> None:
        self.trainers, self.tasks = zip(*trainers, strict=True)

    @cached_property
    def datasets(self) -> list[Any]:
        """The training data of each trainer."""
        for task in self.tasks:
            task.load_dataset("train", epoch=1, combine=False)
        return [task.dataset("train") for task in self.tasks]

    def update(self, rows: Sequence[int]) -> float:
        """One update a trainer on the pairs ``rows``; seconds (CPU time on the CPU, wall-clock time on a GPU)."""
        start = now()
        for built, dataset in zip(self.trainers, self.datasets, strict=True):
            built.train_step([dataset.collater([dataset[i] for i in rows])])
        return now() - start

    def batches(self, shape: Shape) -> list[np.ndarray]:
        """The run's batches in random order: indices of pairs of like length."""
        dataset = self.datasets[0]
        batches = list(dataset.batch_by_size(dataset.ordered_indices(), shape.max_tokens, shape.max_sentences))
        np.random.default_rng(1).shuffle(batches)
        return batches

    def tokens(self, rows: Sequence[int]) -> int:
        """Target tokens of these pairs."""
        return int(self.datasets[0].tgt_sizes[rows].sum())

    def parameters(self) -> int:
        """Of all its models together."""
        return sum(p.numel() for built in self.trainers for p in built.model.parameters())


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def plain_options(shape: Shape, source: str, target: str) -> list[object]:
    return ["--task", "translation", "-s", source, "-t", target, *shape.options(),
            "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1]  # fmt: skip


def pair_options(shape: Shape, dual_lambda: float, *more: object) -> list[object]:
    return ["--task", "dual_translation", "-s", SOURCE, "-t", TARGET, *shape.options(), "--criterion",
            "dual_cross_entropy", "--label-smoothing", 0.1, "--dual-lambda", dual_lambda, *more]  # fmt: skip


def language_models(data: Path, shape: Shape, vocabulary: int) -> list[object]:
    """Options that name a language model for each language: untrained, of about a quarter of one model's size.

    They are made once: Transformers of three quarters of the width, with as many layers as that size allows.
    """
    width = max(heads_of(shape.width), shape.width * 3 // 4)
    body = 28 * shape.layers * shape.width**2  # 12 d² a layer of the encoder, 16 d² of the decoder
    wanted = (2 * vocabulary * shape.width + body) / 4 - vocabulary * width
    layers = max(1, round(wanted / (12 * width**2)))
    chosen: list[object] = []
    for language, option in ((SOURCE, "--src-lm"), (TARGET, "--tgt-lm")):
        path = data / "lm" / language / f"{shape.layers}-{shape.width}.pt"
        if not path.exists():
            built, _ = trainer(
                path.parent, "--task", "language_modeling", "--sample-break-mode", "eos", "--arch", "transformer_lm",
                "--decoder-layers", layers, "--decoder-embed-dim", width, "--decoder-input-dim", width,
                "--decoder-output-dim", width, "--decoder-ffn-embed-dim", 4 * width,
                "--decoder-attention-heads", heads_of(shape.width), "--share-decoder-input-output-embed",
                "--tokens-per-sample", 1024, device="cpu",
            )  # fmt: skip
            built.consolidate_optimizer()
            built.save_checkpoint(str(path), {"train_iterator": {"epoch": 1}})
        chosen += [option, path]
    return chosen


def plain_run(
    data: Path, shape: Shape, source: str = SOURCE, target: str = TARGET, **where: str
) -> tuple[Trainer, Any]:
    """As fairseq is without the plugin, its dropout and its matrix products included."""
    built, task = trainer(data, *plain_options(shape, source, target), **where)
    task.train_step = matmul.fairseq_train_step.__get__(task)
    for module in built.model.modules():
        if isinstance(module, FairseqDropout):
            module.forward = dropout.fairseq_forward.__get__(module)
    return built, task


def two_plain_runs(data: Path, shape: Shape, **where: str) -> Subject:
    return Subject([plain_run(data, shape, **where), plain_run(data, shape, TARGET, SOURCE, **where)])
