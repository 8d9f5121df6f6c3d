"""``language_modeling_running_text``: language models of running text, by truncated back-propagation through time.

fairseq-train DATA --user-dir dual_fairseq --task language_modeling_running_text --tokens-per-sample 64 --arch rnn_lm

The sentences of a split are one text. It is cut into streams of equal length, one for each row of a batch, and each
stream is cut into blocks. Batch k holds block k of every stream: a row begins with the end state of its previous block,
and no gradient flows back beyond a block (Mikolov et al. 2010; Zaremba et al. 2014). Text is read in order, so nothing
is shuffled. Validation also carries states.

States are zero when an epoch begins, and when a run continues within an epoch, because no checkpoint contains them.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary, FairseqDataset, data_utils, iterators
from fairseq.models import FairseqLanguageModel
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask
from torch import Tensor

from ..common.errors import UserError
from ..plugin.model import arch_name
from .cells import State
from .language_model import Carried, RecurrentLanguageModel

logger = logging.getLogger(__name__)


@dataclass
class RunningTextConfig(LanguageModelingConfig):
    tokens_per_sample: int = field(
        default=64, metadata={"help": "tokens in a block, over which gradients flow; batches hold as many as fit"}
    )


class RunningText(FairseqDataset):
    """The sentences of a split as one text of N tokens; they are read from the disk when needed.

    Args:
        sentences: token tensors, each ending in ``</s>``.
        sizes: their lengths.
        dictionary: the language's dictionary.
    """

    def __init__(self, sentences: Any, sizes: np.ndarray, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        self._sentences = sentences
        self._ends = np.cumsum(sizes, dtype=np.int64)  # of each sentence, in tokens from the beginning of the text

    def __len__(self) -> int:
        """N."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def tokens(self, start: int, end: int) -> Tensor:
        """(end − start,) tokens of the text; all tokens before its beginning are ``</s>``."""
        parts = [torch.full((max(0, -start),), self.dictionary.eos(), dtype=torch.long)]
        start = max(0, start)
        sentence = int(np.searchsorted(self._ends, start, side="right"))
        while start < end:
            tokens = self._sentences[sentence]
            begin = int(self._ends[sentence]) - len(tokens)
            parts.append(tokens[start - begin : end - begin].long())
            start, sentence = int(self._ends[sentence]), sentence + 1
        return torch.cat(parts)


class Blocks(FairseqDataset):
    """A text as blocks of parallel streams, whose lengths differ by at most one token.

    Item k · S + s is block k of stream s.

    Args:
        text: N tokens.
        streams: S.
        block_size: tokens in a block. The last block of a stream may have fewer, or one more, so that no batch consists
            of the single tokens by which streams differ.
    """

    def __init__(self, text: RunningText, streams: int, block_size: int) -> None:
        self.text, self.streams, self.block_size = text, streams, block_size
        self.bounds = [len(text) * stream // streams for stream in range(streams + 1)]
        self.blocks = max(1, -(-int(np.diff(self.bounds).min()) // block_size))

    def __len__(self) -> int:
        return self.blocks * self.streams

    def __getitem__(self, index: int) -> dict[str, Any]:
        block, stream = divmod(int(index), self.streams)
        start = self.bounds[stream] + block * self.block_size
        end = self.bounds[stream + 1] if block == self.blocks - 1 else start + self.block_size
        tokens = self.text.tokens(start - 1, end)
        return {"id": index, "block": block, "source": tokens[:-1], "target": tokens[1:]}

    def batches(self, rows: int) -> list[list[int]]:
        """Items of each batch: block after block, and within a block ``rows`` streams at a time.

        fairseq gives batches to S / ``rows`` processes in turn, so each process has its own streams.
        """
        return [list(range(first, first + rows)) for first in range(0, len(self), rows)]

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A language model batch of fairseq, with the number of the ``block``."""
        if not samples:
            return {}

        def padded(key: str) -> Tensor:
            # a row may have one token less than the others
            pad = self.text.dictionary.pad()
            return data_utils.collate_tokens([sample[key] for sample in samples], pad, pad_to_length=1)

        lengths = torch.tensor([len(sample["source"]) for sample in samples])
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "block": samples[0]["block"],
            "nsentences": len(samples),
            "ntokens": int(lengths.sum()),
            "net_input": {"src_tokens": padded("source"), "src_lengths": lengths},
            "target": padded("target"),
        }


@register_task("language_modeling_running_text", dataclass=RunningTextConfig)
class RunningTextTask(LanguageModelingTask):
    """Language modeling that carries states from batch to batch.

    ``fairseq-validate`` also carries states; generation, and ``--src-lm`` of a pair, read each sentence alone.
    """

    def __init__(self, args: Any, dictionary: Dictionary, output_dictionary=None, targets=None) -> None:
        super().__init__(args, dictionary, output_dictionary, targets)
        # for training and for validation: the last successful block, and its last state
        self._ended: dict[str, tuple[int, State | None]] = {}

    @classmethod
    def setup_task(cls, args: Any, **kwargs) -> "RunningTextTask":
        """Load the dictionary.

        Raises:
            UserError: an option cannot be used with running text.
        """
        refused = {
            "--self-target": args.self_target,
            "--past-target": args.past_target,
            "--add-bos-token": args.add_bos_token,
            "--output-dictionary-size": args.output_dictionary_size >= 0,
            "--shorten-method": args.shorten_method != "none",
            "--pad-to-fixed-length": args.pad_to_fixed_length,
            "--pad-to-fixed-bsz": args.pad_to_fixed_bsz,
            f"--sample-break-mode {args.sample_break_mode}": args.sample_break_mode not in (None, "none"),
        }
        for option, is_set in refused.items():
            if is_set:
                raise UserError(f"{option}: not for running text; leave it out, or take --task language_modeling")
        if args.tokens_per_sample < 1:
            raise UserError(f"--tokens-per-sample {args.tokens_per_sample}: must be at least 1")
        return super().setup_task(args, **kwargs)

    def build_model(self, args: Any, from_checkpoint: bool = False) -> FairseqLanguageModel:
        """Build a model.

        Raises:
            UserError: the arch has no state to carry.
        """
        model = super().build_model(args, from_checkpoint)
        if not isinstance(model, RecurrentLanguageModel):
            raise UserError(
                f"--arch {arch_name(args)}: gives no state to carry over running text; take --arch rnn_lm, or --task "
                "language_modeling"
            )
        return model

    # --- data

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        paths = utils.split_paths(self.args.data)
        path = os.path.join(paths[(epoch - 1) % len(paths)], split)
        sentences = data_utils.load_indexed_dataset(path, self.dictionary, self.args.dataset_impl, combine=combine)
        if sentences is None:  # this shows fairseq the end of valid, valid1, ...
            raise FileNotFoundError(f"Dataset not found: {split} ({path})")
        self.datasets[split] = RunningText(sentences, sentences.sizes, self.dictionary)
        if not len(self.datasets[split]):
            raise UserError(f"{path}: is empty; give text with a sentence a line")

    def get_batch_iterator(
        self,
        dataset: FairseqDataset,
        max_tokens: Optional[int] = None,
        max_sentences: Optional[int] = None,
        **options: Any,
    ) -> iterators.EpochBatchIterator:
        """Batches of as many streams as ``max_sentences`` and ``max_tokens`` allow, each with at least one block.

        Raises:
            UserError: ``max_tokens`` is smaller than a block.
        """
        if not isinstance(dataset, RunningText):
            return super().get_batch_iterator(dataset, max_tokens, max_sentences, **options)
        size, processes = self.args.tokens_per_sample, options.get("num_shards", 1)
        if max_tokens is not None and max_tokens < size:
            raise UserError(f"--max-tokens {max_tokens}: does not hold a block of --tokens-per-sample {size}")
        limits = [len(dataset) // (processes * size) or 1]
        limits += [max_sentences] if max_sentences else []
        limits += [max_tokens // size] if max_tokens else []
        blocks = Blocks(dataset, min(limits) * processes, size)
        logger.info(
            "running text: %s tokens as %d streams, each of %d blocks of up to %d tokens",
            f"{len(dataset):,}", blocks.streams, blocks.blocks, size,
        )  # fmt: skip
        passed_on = ("num_shards", "shard_id", "num_workers", "epoch", "skip_remainder_batch")
        return iterators.EpochBatchIterator(
            dataset=blocks,
            collate_fn=blocks.collater,
            batch_sampler=blocks.batches(min(limits)),
            buffer_size=options.get("data_buffer_size", 0),
            disable_shuffling=True,
            **{name: value for name, value in options.items() if name in passed_on},
        )

    def eval_lm_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Raises UserError: ``fairseq-eval-lm`` scores each batch alone."""
        raise UserError(
            "fairseq-eval-lm: carries no states over running text; take fairseq-validate, or leave out --task: each "
            "sample is then scored alone"
        )

    # --- states

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if ignore_grad:  # a placeholder: only other processes have a batch here
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        with self._carried_over(sample, "train") as batch:
            return super().train_step(batch, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, sample, model, criterion):
        with self._carried_over(sample, "valid") as batch:
            return super().valid_step(batch, model, criterion)

    @contextmanager
    def _carried_over(self, sample: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
        """The batch with the first states of its rows: zero unless it follows the last successful batch."""
        block, state = self._ended.get(kind, (-1, None))
        carried = Carried(state if sample["block"] == block + 1 else None)
        yield {**sample, "net_input": {**sample["net_input"], "carried": carried}}
        self._ended[kind] = sample["block"], carried.state
