"""``dual-fairseq demo``: the whole pipeline on the embedded corpus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..common.arguments import Parser, file_path
from ..common.folders import refuse_colons
from . import train
from .jobs import check, say, step

HELP = """\
The whole pipeline on the embedded corpus, a small German-English grammar whose probabilities are known exactly:
preprocessing, both language models, a warm start by maximum likelihood, dual training, a control that goes on with
maximum likelihood for as many updates, and a table, a picture and a page at the end. Under 10 minutes on two CPU cores.

RUN gets everything; RUN/report/ the result. The same command again goes on where it was stopped.
"""
CORPUS = "--train 3000 --valid 300 --test 500 --mono 12000 --seed 1"
# The settings for so much text (common/settings.py), but for what makes it quick, and less dropout for a grammar.
TRAINING = """--control --lm-max-epoch 4 --lm-lr 0.004 --lm-lr-warmup 50
    --dropout 0.2 --lr-warmup 200 --warmup-max-epoch 12 --dual-max-epoch 6 --dual-lr 0.0007"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("demo", HELP)
    parser.add_argument("run", metavar="RUN", nargs="?", default="runs/demo", type=file_path,
                        help="the folder for all of it (default runs/demo)")  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    run = get_parser().parse_args(arguments).run
    refuse_colons(run)
    began = time.monotonic()

    def taken() -> str:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        return f"{minutes}:{seconds:02d}"

    text, data = run / "text", run / "data"
    say(f"\n=== 1/4 Drawing 3,000 sentence pairs from the grammar ({taken()})")
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
            "preprocess", "--source-lang=de", "--target-lang=en", *prefixes, *mono, "--bpe-size=1200", f"--dest={data}"
        )
    )
    say(f"\n=== 3/4 Language models, warm start, dual training, control, evaluation ({taken()})")
    train.main([str(data), str(run / "train"), *TRAINING.split()])
    say(f"\n=== 4/4 Report ({taken()})")
    check(step("report.demo", run))
    say(f"The demo took {taken()} minutes.")
