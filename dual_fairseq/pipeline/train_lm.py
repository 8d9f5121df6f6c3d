"""``dual-fairseq train-lm``: trains the language model of one language."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..common.arguments import Parser, decimal, file_path, positive
from ..common.errors import UserError
from ..common.files import whole_file, write_json, write_text
from ..common.folders import StageFolder, refuse_colons
from ..common.options import add_device, add_dry_run, add_seed
from ..common.records import read_record
from . import jobs
from .changes import Typed
from .choices import choose_language_model, subword_of
from .devices import Device, find_device
from .jobs import ask, locked, say, step
from .presets import LANGUAGE_MODELS, SIZES, LanguageModel
from .stages import Stage, digest

HELP = """\
Train the language model of one language, for dual training.

DATA is the folder of the language that preprocessing wrote (DEST/lm/de). Its dictionary is that of the translation
data. The command writes checkpoint_best.pt, checkpoint_last.pt, dict.txt, train.log and perplexity.json to SAVE_DIR.
Without --running-text, the model is trained on single sentences (--sample-break-mode eos), because dual training scores
each sentence alone.

If DATA is labels (--subword label), nothing is trained: P(label) is the share of the label in the training text.

If the command was stopped, run it again: it continues. If it is finished, it does nothing.
"""


def get_parser() -> Parser:
    """The options of the command."""
    parser = Parser("train-lm", HELP, passes_on="fairseq-train")
    add = parser.add_argument
    add("data", metavar="DATA", type=file_path, help="binarized text of a language, DEST/lm/<language>")
    add("save_dir", metavar="SAVE_DIR", type=file_path, help="the folder for the model")
    add("--arch", choices=tuple(LANGUAGE_MODELS), default="lstm",
        help="the model (default: fairseq's lstm; rnn has a choice of cells)")  # fmt: skip
    add("--cell", choices=("rnn", "gru", "lstm"),
        help="the cell of --arch rnn (default lstm; rnn is the plain one, with tanh)")  # fmt: skip
    add("--size", choices=SIZES,
        help="lstm, rnn: 1x256 (d=128), 2x512 (d=256), 2x1024 (d=512); transformer: 2 layers d=128, 4 layers d=256, 6 "
        "layers d=512; tied embeddings in all of them (default: by the number of sentences)")  # fmt: skip
    add("--running-text", type=positive, metavar="BLOCK",
        help="with --arch rnn: train on running text, not on single sentences, by truncated back-propagation through "
        "blocks of BLOCK tokens (e.g. 64); the perplexity is then that of running text")  # fmt: skip
    add("--dropout", type=decimal, metavar="P",
        help="dropout (default: by the number of sentences; another size or transformer: its own)")  # fmt: skip
    add("--max-tokens", type=positive, metavar="N",
        help="tokens of a batch, on each device (default: by the number of sentences)")  # fmt: skip
    add("--lr", type=decimal, metavar="RATE",
        help="peak learning rate of Adam (default: as for --dropout)")  # fmt: skip
    add(
        "--lr-warmup",
        type=positive,
        metavar="N",
        help="updates until the peak; then it falls with the inverse square root (default: as for --dropout)",
    )
    add("--max-epoch", type=positive, metavar="N",
        help="at most N epochs (default: by the number of sentences, unless --max-update is given)")  # fmt: skip
    add("--max-update", type=positive, metavar="N",
        help="at most N updates (default: by the number of sentences, unless --max-epoch is given)")  # fmt: skip
    add("--patience", type=positive, default="4", metavar="N",
        help="stop after N validations without improvement (default 4)")  # fmt: skip
    add_training(parser, "continue in a SAVE_DIR that was trained with other options or input")
    return parser


def add_training(parser: argparse._ActionsContainer, go_on: str) -> None:
    """Add the options that trainings have in common."""
    add = parser.add_argument
    add_seed(parser, positive)
    add("--nproc", type=positive, metavar="N",
        help="processes, through torchrun (default: one for each GPU, or one on the CPU)")  # fmt: skip
    add_device(parser)
    add("--continue", dest="go_on", action="store_true", help=go_on)
    add_dry_run(parser)


def parse(arguments: Sequence[str] | None, prefix: str = "") -> argparse.Namespace:
    """The options, completed for the text (``chosen`` lists the choices); ``extra`` holds those after ``--``.

    Args:
        arguments: the command line.
        prefix: begins the option names that are printed: ``lm-`` in ``dual-fairseq train``.

    Raises:
        UserError: something is wrong with the options or the data.
    """
    options, extra = get_parser().parse(arguments)
    for name in ("dict.txt", "train.bin", "train.idx", "valid.bin", "valid.idx"):
        if not (options.data / name).is_file():
            raise UserError(
                f"{options.data / name} not found: give a language's folder that dual-fairseq preprocess wrote, "
                "DEST/lm/<language>"
            )
    refuse_colons(options.data, options.save_dir)
    if options.arch != "rnn":
        for option, value in (("--cell", options.cell), ("--running-text", options.running_text)):
            if value:
                raise UserError(f"{option} {value} is for --arch rnn, not {options.arch}")
    elif not options.cell:
        options.cell = "lstm"
    options.extra, options.prefix = extra, prefix
    options.labels = subword_of(options.data) == "label"
    if options.labels:
        options.chosen = ["  P(label) is its share of the training text; the other options are for text"]
        return options
    options.chosen = choose_language_model(options)
    if options.running_text and int(options.max_tokens) < int(options.running_text):
        raise UserError(
            f"--running-text {options.running_text}: needs --max-tokens of at least as many, not {options.max_tokens}"
        )
    return options


class Counting(Stage):
    """The language model of labels, which is only counted."""

    def command(self, device: Device, shown: bool = False) -> list[str]:
        return step("plugin.label_model", self.data, self.files.best)

    def train(self, device: Device) -> None:
        """Raises SystemExit if the data are no labels (one line says so)."""
        jobs.check(self.command(device))
        self.files.last.unlink(missing_ok=True)  # from other labels
        write_text(self.files.finished, "counted\n")


def stage(options: argparse.Namespace) -> Stage:
    """The training that options of :func:`parse` ask for."""
    data, files = options.data, StageFolder(options.save_dir)
    inputs = ["data " + digest(data / "dict.txt", data / "train.idx", data / "valid.idx")]
    if options.labels:
        inputs = ["data " + digest(data / "dict.txt", data / "train.bin", data / "valid.bin")]
        return Counting(files, "Language model (counts of labels)", data, inputs, ["--arch", "label_lm"])
    words = ["--task", "language_modeling", "--sample-break-mode", "eos"]
    if options.running_text:
        # Validation text in one stream per process: its perplexity must not depend on the size of a batch.
        words = ["--task", "language_modeling_running_text", "--tokens-per-sample", options.running_text]
        words += ["--batch-size-valid", "1"]
    sizes = {size: shape(options.arch, preset) for size, preset in LANGUAGE_MODELS[options.arch].items()}
    layers, dimension, *rest = ([f"--{name}", value] for name, value in sizes[options.size].items())
    words += ["--arch", f"{options.arch}_lm", *layers, *dimension, "--share-decoder-input-output-embed"]
    words += ["--cell", options.cell] if options.arch == "rnn" else []
    words += [word for option in rest for word in option]
    words += ["--dropout", options.dropout, "--criterion", "cross_entropy"]
    words += ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0"]
    words += ["--lr", options.lr, "--lr-scheduler", "inverse_sqrt"]
    words += ["--warmup-updates", options.lr_warmup, "--warmup-init-lr", "1e-7"]
    # In training and validation, fairseq drops the last batch (the longest sentences) if its number of sentences is
    # not a multiple of --required-batch-size-multiple (8 by default).
    words += ["--max-tokens", options.max_tokens, "--required-batch-size-multiple", "1"]
    words += ["--max-epoch", options.max_epoch] if options.max_epoch else []
    words += ["--patience", options.patience, "--seed", options.seed]
    names = {"lr": "lr", "warmup-updates": "lr-warmup"}
    names |= {name: name for name in ("max-tokens", "dropout", "max-epoch", "max-update", "patience", "arch", "cell")}
    typed = {option: f"--{options.prefix}{name}" for option, name in names.items()}
    typed |= {"tokens-per-sample": "--running-text", "task": "", "sample-break-mode": "", "batch-size-valid": ""}
    return Stage(
        files,
        f"Language model ({options.arch}{', ' + options.cell if options.cell else ''}, {options.size})",
        data,
        inputs,
        words,
        max_update=options.max_update,
        extra=options.extra,
        typed=Typed(typed, sizes, f"--{options.prefix}size"),
    )


def shape(arch: str, preset: LanguageModel) -> dict[str, str]:
    """The dimensions of a language model as options of fairseq-train, without dashes."""
    words = {"decoder-layers": preset.layers, "decoder-embed-dim": preset.dimension}
    if arch == "transformer":
        return words | {"decoder-attention-heads": preset.heads, "decoder-ffn-embed-dim": preset.feed_forward}
    words |= {"decoder-out-embed-dim": preset.dimension} if arch == "lstm" else {}
    return words | {"decoder-hidden-size": preset.hidden}


def train(options: argparse.Namespace, device: Device) -> None:
    """Train the language model unless it is finished, and note its perplexity.

    Raises:
        UserError: the folder holds another training or is in use, or fairseq-train failed.
    """
    training = stage(options)
    files = training.files
    with locked(files.folder):
        if training.begin(options.go_on):
            say(f"{training.title.removesuffix(')')}; {device}): {options.data} -> {files.folder}")
            for line in options.chosen:
                say(line)
            with training.recorded_anew():
                training.train(device)
        else:
            say(training.finished_before())
        result = files.perplexity
        if not result.is_file():
            with whole_file(files.folder / "dict.txt") as copy:
                copy.write((options.data / "dict.txt").read_bytes())
            updates, bits = ask(step("pipeline.probe", "score", files.best)).split()
            scores = {"perplexity": 2 ** float(bits), "bits_per_token": float(bits), "num_updates": int(updates)}
            write_json(result, scores)
    perplexity = read_record(result, {"perplexity": float}, "remove it, and it will be measured again")["perplexity"]
    say(f"  validation perplexity {perplexity:.2f} per token: {files.best}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: the user has something to fix.
    """
    options = parse(arguments)
    device = find_device(options.cpu, options.nproc, options.extra)
    if options.dry_run:
        show(options, device)
    else:
        train(options, device)


def show(options: argparse.Namespace, device: Device) -> None:
    """Print the training command, ready to copy."""
    training = stage(options)
    for line in options.chosen:
        say(f"# {line}")
    jobs.show(training.title, training.command(device, shown=True))
