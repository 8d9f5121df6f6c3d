"""What dual inference costs: beam search alone against beam search and re-scoring, the same batches, in one run.

    python benchmarks/dual_inference.py run/dual/checkpoint_best.pt --src-lm lm/de.pt --tgt-lm lm/en.pt --split test

The two take turns batch by batch. Times are processor time on the CPU (one thread: set OMP_NUM_THREADS=1) and elapsed
time on a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from fairseq import utils
from fairseq.dataclass.configs import FairseqConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dual_fairseq.pair.load import load_pair
from dual_fairseq.plugin.ranking import Weights


def clock(device: torch.device) -> float:
    """Seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a pair")
    parser.add_argument("-s", dest="source")
    parser.add_argument("-t", dest="target")
    parser.add_argument("--data", help="binarized data (default: that of the checkpoint)")
    parser.add_argument("--src-lm", required=True)
    parser.add_argument("--tgt-lm", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, nargs="+", default=[5])
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--sentences", type=int, default=1000, help="at most this many (default 1000)")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--fp16", action="store_true")
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    lms = {"src_lm": options.src_lm, "tgt_lm": options.tgt_lm}
    pair, task = load_pair(options.checkpoint, options.data, options.source, options.target, device, lms)
    if options.fp16:
        pair.half()
    pair.prepare_for_inference_(FairseqConfig())
    task.load_dataset(options.split)
    batches = task.get_batch_iterator(task.dataset(options.split), max_tokens=options.max_tokens).next_epoch_itr(
        shuffle=False
    )
    samples, count = [], 0
    for sample in batches:
        if count < options.sentences:
            samples.append(sample)
            count += sample["nsentences"]
    where = f"{device}, {torch.get_num_threads()} thread(s)"
    print(f"{count} sentences of '{options.split}', {task.directions[0]}, on {where}")
    print("beam  plain s  dual inference s  ratio")
    for beam in options.beam:
        arguments = argparse.Namespace(beam=beam, nbest=1, lenpen=1.0)
        generators = []
        for weights in (None, Weights.of_alpha(0.5)):
            task.dual_inference = weights
            generators.append(task.build_generator([pair], arguments))
        seconds = [0.0, 0.0]
        for number, sample in enumerate([samples[0], *samples]):
            sample = utils.move_to_cuda(sample) if device.type == "cuda" else sample
            for which in (0, 1) if number % 2 else (1, 0):
                begun = clock(device)
                task.inference_step(generators[which], [pair], sample)
                if number:  # the first round warms up
                    seconds[which] += clock(device) - begun
        print(f"{beam:4}  {seconds[0]:7.2f}  {seconds[1]:16.2f}  {seconds[1] / seconds[0]:5.2f}")


if __name__ == "__main__":
    main()
