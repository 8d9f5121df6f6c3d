"""What translation costs, plain and by dual inference, by fairseq and by CTranslate2: the same sentences in one run.

    python benchmarks/dual_inference.py run/dual/checkpoint_best.pt --src-lm lm/de.pt --tgt-lm lm/en.pt --split test
    python benchmarks/dual_inference.py --untrained 512 --sentences 60        # Transformer-base, random weights

Subjects take turns block by block. Seconds are processor time of all threads, and elapsed time. A ratio is to plain
translation by fairseq with as many threads.

Random weights would never end a sentence, and their time is that of a model of their size only if they do. So the
weights of </s> are fitted to end every translation after as many tokens as sources have on average.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass.configs import GenerationConfig
from subjects import SOURCE, TARGET, Corpus, Shape, language_models, pair_options, trainer

from dual_fairseq.pair.engine import BLOCK_TOKENS, choose_engine
from dual_fairseq.pair.load import load_pair
from dual_fairseq.pair.search import search
from dual_fairseq.plugin.log_probs import length_sorted_batches
from dual_fairseq.plugin.ranking import Weights

SUBJECTS = {  # name → engine, 8 bits
    "fairseq": ("fairseq", False),
    "CTranslate2": ("ctranslate2", False),
    "CTranslate2, int8": ("ctranslate2", True),
}
LAYERS = {128: 2, 256: 4, 512: 6}
LENGTH = 14  # tokens of a generated sentence


def untrained(folder: Path, width: int, vocabulary: int, sentences: int) -> tuple[Path, Path, list[str]]:
    """A pair of random weights: its checkpoint, its data (split ``train``), and its language models' files."""
    shape = Shape(LAYERS[width], width, 4096, 512)
    data = Corpus(sentences, vocabulary, LENGTH).write(folder / "data")
    options = [o for o in pair_options(shape, 0) if o != "--share-decoder-input-output-embed"]
    built, task = trainer(data, *options, device="cpu")
    for direction, side in task.sides.items():
        end_after(built.model.models[direction].eval(), side.target_dictionary, LENGTH)
    built.consolidate_optimizer()
    (folder / "pair").mkdir()
    checkpoint = folder / "pair" / "checkpoint_best.pt"
    built.save_checkpoint(str(checkpoint), {"train_iterator": {"epoch": 1}})
    lms = language_models(data, shape, vocabulary)
    return checkpoint, data, [str(lms[1]), str(lms[3])]


@torch.no_grad()
def end_after(model: Any, dictionary: Any, length: int) -> None:
    """Make ``</s>`` unlikely before that many tokens and certain after them, by least squares over random text.

    Random weights like to say one token again and again, so half of the text does.
    """
    generator = torch.Generator().manual_seed(1)
    rows, longest, eos = 512, 4 * length, dictionary.eos()
    tokens = torch.randint(dictionary.nspecial, len(dictionary), (rows, longest), generator=generator)
    source = tokens[:, :length].clone()
    tokens[: rows // 2] = tokens[: rows // 2, :1]
    tokens[:, 0] = eos
    features, _ = model(source, torch.full((rows,), length), tokens, features_only=True)
    wanted = torch.where(torch.arange(longest) < length, -20.0, 20.0).expand(rows, -1)
    solution = torch.linalg.lstsq(features.reshape(-1, features.size(-1)), wanted.reshape(-1, 1)).solution
    model.decoder.output_projection.weight[eos] = solution.squeeze(1)


def measure(options: argparse.Namespace, threads: int) -> None:
    """Print the rows of a number of threads."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    lms = {"src_lm": options.src_lm, "tgt_lm": options.tgt_lm}
    pair, task = load_pair(options.checkpoint, options.data, options.source, options.target, device, lms)
    if options.fp16:
        pair.half()
    generation = GenerationConfig(beam=options.beam, no_beamable_mm=True)
    pair.prepare_for_inference_(argparse.Namespace(generation=generation))
    task.load_dataset(options.split)
    dataset = task.dataset(options.split)
    sentences = [dataset.src[i] for i in range(min(options.sentences, len(dataset)))]
    subjects: dict[tuple[str, str], Any] = {}
    for name, (kind, int8) in SUBJECTS.items():
        engine = choose_engine(kind, [pair], task, [Path(options.checkpoint)], int8)
        for what, weights in (("plain", None), ("dual inference", Weights.of_alpha(0.5))):
            task.dual_inference = weights
            generator = task.build_generator([pair], generation)
            subjects[name, what] = engine.generator(task, generator, generation) if engine else generator
    sizes = torch.tensor([len(sentence) for sentence in sentences]).numpy()
    batches = [[sentences[i] for i in batch] for batch in length_sorted_batches(sizes, BLOCK_TOKENS)]
    processor, elapsed = dict.fromkeys(subjects, 0.0), dict.fromkeys(subjects, 0.0)
    length = count = 0
    for number, batch in enumerate([batches[-1][:8], *batches]):
        for subject, generator in list(subjects.items())[:: 1 if number % 2 else -1]:
            began, wall = time.process_time(), time.perf_counter()
            at_once = options.max_tokens if subject[0] == "fairseq" else BLOCK_TOKENS
            found = list(search(task, generator, [pair], batch, at_once))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:  # the first round warms up
                elapsed[subject] += time.perf_counter() - wall
                processor[subject] += time.process_time() - began
            if number and subject == ("fairseq", "plain"):
                length += sum(len(beam[0]["tokens"]) for _, beam in found)
                count += len(found)
    base = ("fairseq", "plain")
    print(
        f"\n{count} sentences of {sizes.mean():.1f} tokens to {length / count:.1f}, beam {options.beam}, {device}, "
        f"{threads} thread(s)\n\n| | CPU seconds | ratio | elapsed seconds | ratio |"
    )
    print("|---|---|---|---|---|")
    for subject in subjects:
        cpu, wall = processor[subject], elapsed[subject]
        print(f"| {', '.join(subject)} | {cpu:.2f} | {cpu / processor[base]:.2f} | {wall:.2f} | "
              f"{wall / elapsed[base]:.2f} |", flush=True)  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="of a pair")
    parser.add_argument("--untrained", type=int, choices=LAYERS, help="a pair of random weights of this width instead")
    parser.add_argument("--vocabulary", type=int, default=8000, help="its symbols a language (default 8000)")
    parser.add_argument("-s", dest="source")
    parser.add_argument("-t", dest="target")
    parser.add_argument("--data", help="binarized data (default: that of the checkpoint)")
    parser.add_argument("--src-lm")
    parser.add_argument("--tgt-lm")
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--sentences", type=int, default=1000, help="at most this many (default 1000)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="in turn (default 1)")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--fp16", action="store_true")
    options = parser.parse_args()
    if (options.checkpoint is None) == (options.untrained is None):
        parser.error("give a checkpoint or --untrained")
    with tempfile.TemporaryDirectory() as folder:
        if options.untrained:
            options.checkpoint, options.data, (options.src_lm, options.tgt_lm) = untrained(
                Path(folder), options.untrained, options.vocabulary, options.sentences
            )
            options.source, options.target, options.split = SOURCE, TARGET, "train"
        for threads in options.threads:
            measure(options, threads)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
