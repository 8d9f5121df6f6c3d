"""``dual-fairseq demo``: the whole pipeline on the embedded corpus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..common.arguments import Parser, file_path, positive
from ..common.folders import refuse_colons
from ..common.options import add_device, add_seed
from . import train
from .jobs import check, say, step

HELP = """\
Run the whole pipeline on the embedded corpus, a small German-English grammar whose probabilities are known exactly.
There are 1,000 sentence pairs and 12,000 monolingual sentences per language. Both language models are trained on all of
this text. A warm start is trained on the pairs by maximum likelihood. It translates 3,000 sentences of each language,
and dual training continues on the pairs and these translations. A control continues by maximum likelihood on the pairs,
for the same number of updates. The demo takes 4 to 12 minutes on two CPU cores, by their speed.

RUN holds all files, and RUN/report/ the result: a table, a picture and a page. If the command was stopped, run it
again: it continues.
"""
CORPUS = "--train 1000 --valid 200 --test 500 --mono 12000 --seed 1"
# Quick settings for this size (common/settings.py has the best ones). Validation counts updates, because an epoch with
# translated text is several times as long as an epoch of the pairs.
TRAINING = """--control --rounds 1 --round-lines 3000 --size tiny --max-tokens 512 --dropout 0.2 --dual-lambda 0.01
    --lm-size tiny --lm-max-tokens 2048 --lm-max-epoch 3 --lm-lr 0.004 --lm-lr-warmup 30
    --lr 0.004 --lr-warmup 100 --warmup-max-epoch 1000 --warmup-max-update 900
    --dual-lr 0.001 --dual-max-epoch 1000 --dual-max-update 200"""
FAIRSEQ = """--optimizer torch_adam --save-interval 1000 --validate-interval 1000
    --save-interval-updates 200 --validate-interval-updates 200 --keep-interval-updates 1"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("demo", HELP)
    parser.add_argument("run", metavar="RUN", nargs="?", default="runs/demo", type=file_path,
                        help="the folder for all files (default runs/demo)")  # fmt: skip
    add_seed(parser, positive)
    add_device(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    options = get_parser().parse_args(arguments)
    run = options.run
    refuse_colons(run)
    began = time.monotonic()

    def taken() -> str:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        return f"{minutes}:{seconds:02d}"

    text, data = run / "text", run / "data"
    say(f"\n=== 1/4 Drawing 1,000 sentence pairs from the grammar ({taken()})")
    if (text / "truth.json").is_file():
        say(f"drawn before: {text}")
    else:
        run.mkdir(parents=True, exist_ok=True)
        check(step("toy-corpus", text, *CORPUS.split()))
    say(f"\n=== 2/4 Preprocessing ({taken()})")
    prefixes = [f"--{split}={text / split}" for split in ("train", "valid", "test")]
    mono = [f"--extra-mono-source={text / 'mono.de'}", f"--extra-mono-target={text / 'mono.en'}"]
    check(
        step(
            "preprocess", "--source-lang=de", "--target-lang=en", *prefixes, *mono, "--bpe-size=1000", f"--dest={data}"
        )
    )
    say(f"\n=== 3/4 Language models, warm start, a round of dual training, control ({taken()})")
    seed, cpu = f"--seed={options.seed}", ["--cpu"] * options.cpu
    train.main([str(data), str(run / "train"), *TRAINING.split(), seed, *cpu, "--", *FAIRSEQ.split()])
    say(f"\n=== 4/4 Report ({taken()})")
    check(step("report.demo", run, *cpu))
    say(f"The demo took {taken()} minutes.")
