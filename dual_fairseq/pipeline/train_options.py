"""The options of ``dual-fairseq train``, and the values that follow from others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..common.arguments import Parser, count, decimal, file_path, positive
from ..common.errors import UserError
from ..common.folders import find_checkpoint
from ..common.options import add_language_models, add_split, flag
from . import config, evaluate, train_lm
from .averaging import add_average
from .inheritance import take_over
from .presets import LANGUAGE_MODELS, SIZES
from .rounds import add_rounds

HELP = """\
Train both translation models of a language pair with dual supervision, from preprocessed text to evaluated models.

DEST is the folder that dual-fairseq preprocess wrote. Sizes, batches, learning rates and limits depend on the amount of
text, and are printed (docs/settings.md). A run keeps the settings that it started with. Each stage has a folder in RUN:
  lm/<language>  the two language models (dual-fairseq train-lm), without --src-lm and --tgt-lm
  warmup         warm start: the pair by maximum likelihood (λ = 0), until the mean BLEU of both directions on the
                 validation text no longer improves
  dual           dual training from the best warm start, until the mean BLEU no longer improves
  mle            with --control: the same, but by maximum likelihood, for exactly the same number of updates
Each stage keeps checkpoint_best.pt (best mean BLEU), checkpoint_last.pt and train.log. Both directions are evaluated
(<stage>/eval/test, see dual-fairseq evaluate). At the end, the command prints a table of the results.

If a side is labels or tags (--subword label or tag), accuracy replaces BLEU, and P(label) is counted. With --rounds the
pair translates text and continues dual training on it, several times (RUN/rounds).

The language models' scores of the training text are computed once and kept in RUN/lm-scores. RUN/text is a copy of the
parts of DEST that dual-fairseq translate RUN needs: dictionaries, BPE codes, the record of the tokenisation.
RUN/train.toml holds all options, for use with --config.

If the command was stopped, run it again: it continues, and skips finished stages.
"""
# Options of train-lm that are options here too, with lm_ before their names.
LM_OPTIONS = ("arch", "cell", "size", "dropout", "max_tokens", "lr", "lr_warmup", "max_epoch", "max_update", "patience")
EXAMPLES = """\

  -- --fp16 --update-freq 4
  -- --save-interval-updates 2000 --keep-interval-updates 1    for long epochs: less is lost when stopped
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("train", HELP, passes_on="fairseq-train")
    parser.epilog = f"{parser.epilog}{EXAMPLES}"
    parser.add_argument("dest", metavar="DEST", type=file_path, help="the folder that dual-fairseq preprocess wrote")
    parser.add_argument("run", metavar="RUN", type=file_path, help="the folder for the run")
    parser.add_argument(
        "--config", type=file_path, metavar="FILE",
        help="read options from a TOML file, such as the RUN/train.toml of another run. The keys are long option names "
        f"without the dashes; {config.EXTRA} = [...] holds the options after `--`. The command line overrides the file",
    )  # fmt: skip
    _add_language_models(parser.add_argument_group("language models"))
    _add_pair(parser.add_argument_group("the pair"))
    _add_dual(parser.add_argument_group("dual training"))
    add_rounds(parser.add_argument_group("rounds of learning from translated text"))
    _add_stages(parser.add_argument_group("both stages of the pair"))
    evaluation = parser.add_argument_group("evaluation")
    add_split(evaluation, "(default: test, or valid if there is no test)", type=evaluate.split_name)
    evaluate.add_search(evaluation)
    evaluation.add_argument("--dual-inference", action=argparse.BooleanOptionalAction, default=True,
                            help="also re-score translations with both models and both language models (the weights "
                            "are tuned on the validation text, which is translated for this; default: on)")  # fmt: skip
    evaluation.add_argument("--eval", action=argparse.BooleanOptionalAction, default=True,
                            help="evaluate the stages (default: on)")  # fmt: skip
    train_lm.add_training(parser.add_argument_group("machine"), "continue stages that were trained with other options")
    return parser


def _add_language_models(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add_language_models(group, "train them", file_path)
    add("--lm-arch", choices=tuple(LANGUAGE_MODELS), help="for the --lm options see dual-fairseq train-lm --help")
    add("--lm-cell", choices=("rnn", "gru", "lstm"))
    add("--lm-size", choices=SIZES)
    add("--lm-dropout", type=decimal, metavar="P")
    add("--lm-max-tokens", type=positive, metavar="N")
    add("--lm-lr", type=decimal, metavar="RATE")
    for name in ("lr-warmup", "max-epoch", "max-update", "patience"):
        add(f"--lm-{name}", type=positive, metavar="N")


def _add_pair(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--arch", metavar="NAME",
        help="any encoder-decoder of fairseq, or rnnsearch, rnn_luong, rnn_encoder_decoder, each also with _small "
        "(docs/recurrent.md); default transformer, or that of --init")  # fmt: skip
    add("--size", choices=SIZES,
        help="for --arch transformer: 2+2 layers d=128, 4+4 d=256, 6+6 d=512; decoder embeddings tied (default: that "
        "of --init, or by the corpus). Another arch has its own defaults: set its dimensions after `--`")  # fmt: skip
    add("--dropout", type=decimal, metavar="P",
        help="dropout (default: by the corpus; another arch: its own)")  # fmt: skip
    add(
        "--label-smoothing",
        type=decimal,
        default="0.1",
        metavar="X",
        help="label smoothing of the loss, never of the gap (default 0.1)",
    )
    add("--init", type=file_path, metavar="RUN",
        help="start dual training from a trained pair (a run or a checkpoint) instead of the stage warmup; its sizes "
        "and its language models are used too, unless other options set them")  # fmt: skip
    add("--init-src2tgt", type=file_path, metavar="FILE",
        help="start a direction from a plain fairseq translation checkpoint of the same --arch and dictionaries, or "
        "from a pair ...")  # fmt: skip
    add("--init-tgt2src", type=file_path, metavar="FILE", help="... and the other direction from this one")


def _add_dual(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dual-lambda", type=decimal, default="0.01", metavar="X",
        help="weight of the squared gap, both directions (default 0.01)")  # fmt: skip
    add("--dual-lambda-reverse", type=decimal, metavar="X",
        help="the weight for target→source (default: as --dual-lambda)")  # fmt: skip
    add("--dual-start-update", type=count, metavar="N", help="the weight is 0 for the first N updates (default 0)")
    add("--dual-ramp-updates", type=count, metavar="N", help="then it grows linearly over N updates (default 0)")
    add("--dual-gap-clip", type=decimal, metavar="X",
        help="bound |gap| (nats) in the gradient (default 0: not bounded)")  # fmt: skip
    add("--control", action=argparse.BooleanOptionalAction, default=False,
        help="train and evaluate the stage mle too (default: off)")  # fmt: skip


def _add_stages(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--max-tokens", type=positive, metavar="N",
        help="target tokens of a batch, on each device (default: by the corpus)")  # fmt: skip
    add("--lr", type=decimal, metavar="RATE",
        help="peak learning rate of the warm start (default: by the corpus; another arch: as with --size "
        "small)")  # fmt: skip
    add("--dual-lr", type=decimal, metavar="RATE",
        help="peak learning rate of dual training and of mle (default: as for --lr)")  # fmt: skip
    add("--lr-warmup", type=positive, metavar="N",
        help="updates until the peak; then it falls with the inverse square root (default: as for --lr)")  # fmt: skip
    for stage, name in (("warmup", "warm start"), ("dual", "dual training")):
        add(f"--{stage}-max-epoch", type=positive, metavar="N",
            help=f"at most N epochs of {name} (default: by the corpus, unless --{stage}-max-update "
            "is given)")  # fmt: skip
        add(f"--{stage}-max-update", type=positive, metavar="N",
            help=f"at most N updates of {name} (default: by the corpus, unless --{stage}-max-epoch "
            "is given)")  # fmt: skip
    add("--warmup-only", action=argparse.BooleanOptionalAction, default=False,
        help="train only the warm start. It needs no language models; the options of language models and of dual "
        "training are then ignored (default: off)")  # fmt: skip
    add("--patience", type=positive, default="10", metavar="N",
        help="stop after N validations without a better mean BLEU (default 10)")  # fmt: skip
    add_average(group)
    add("--valid-beam", type=positive, default="1", metavar="N", help="beam size of validation (default 1)")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ``extra`` holds those after ``--``. Options that the corpus decides are None if they were not given.

    Raises:
        UserError: something is wrong with the options.
    """
    options, extra = config.parse(get_parser(), arguments)
    options.extra = extra
    for lm in (options.src_lm, options.tgt_lm):
        if lm and not lm.is_file():
            raise UserError(f"{lm}: there is no such language model")
    start = [file for file in (options.init_src2tgt, options.init_tgt2src) if file]
    if options.init and start:
        raise UserError("give --init, or --init-src2tgt and --init-tgt2src")
    if len(start) == 1:
        raise UserError("give both --init-src2tgt and --init-tgt2src, or neither")
    names = ("init", "init_src2tgt", "init_tgt2src", "control", "warmup_only")
    given = {flag(name) for name in names if getattr(options, name)}
    if options.init:
        start = [options.init, options.init]
    if start:
        options.init_src2tgt, options.init_tgt2src = map(find_checkpoint, start)
    take_over(options)
    options.arch = options.arch or "transformer"
    if options.lm_cell and options.lm_arch != "rnn":
        raise UserError(f"--lm-cell {options.lm_cell} is for --lm-arch rnn: give that too")
    if options.warmup_only and (later := sorted(given - {"--warmup-only"})):
        raise UserError(f"--warmup-only: trains no later stages; leave out {' and '.join(later)}")
    if int(options.rounds or 0) and (other := sorted(given - {"--control"})):
        raise UserError(f"--rounds: begins with the warm start; leave out {' and '.join(other)}")
    if int(options.rounds or 0) and options.average:
        raise UserError("--rounds: judges rounds by their best checkpoints; leave out --average")
    if options.rounds is None:
        for name in ("round_text", "round_lines", "upsample"):
            if getattr(options, name):
                raise UserError(f"{flag(name)} {getattr(options, name)}: needs --rounds; give it too")
    if options.size and options.arch != "transformer":
        raise UserError(f"--size is for --arch transformer; set the dimensions of {options.arch} after --")
    return options
