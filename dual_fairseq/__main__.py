"""The command line: ``dual-fairseq COMMAND``, or ``python -m dual_fairseq COMMAND``.

One table of commands, and one policy for errors, interruptions and library messages in all commands.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import dual_fairseq

from .common.arguments import Parser, did_you_mean
from .common.errors import UserError
from .common.interruption import Stopped, at_once, stoppable
from .common.memory import enough_memory
from .common.quiet import quieten_libraries


@dataclass(frozen=True)
class Command:
    """A command of the table.

    Args:
        module: the module in this package that runs it.
        summary: one line for the list of commands.
        loads_fairseq: whether the plugin is registered with fairseq first, which takes seconds.
        goes_on: whether the same command continues after it was stopped.
        function: the module's function that gets the arguments.
    """

    module: str
    summary: str
    loads_fairseq: bool = True
    goes_on: bool = False
    function: str = "main"


COMMANDS = {
    "preprocess": Command("data.preprocess", "clean, tokenise, segment and binarize parallel text", False, True),
    "corpus": Command("data.corpora", "download and preprocess a public corpus (multi30k, wmt16)", False, True),
    "select": Command("data.select", "choose monolingual text that is similar to the pairs", False),
    "train-lm": Command("pipeline.train_lm", "train the language model of one language", False, True),
    "train": Command("pipeline.train", "train a pair: language models, warm start, dual training", False, True),
    "evaluate": Command("pipeline.evaluate", "translate a split in both directions and score it", False, True),
    "synthesize": Command("pipeline.synthesize", "translate monolingual text with a pair, to train on it", False, True),
    "translate": Command("pair.translate", "translate raw text, line by line"),
    "score": Command("pair.commands", "compute log-probabilities and duality gap of parallel text", function="score"),
    "filter": Command("pair.filter", "keep the best pairs of scored parallel text", False),
    "tune": Command("pair.tune", "tune the weights of dual inference on n-best lists", False),
    "export": Command("pair.commands", "write one direction as a plain fairseq checkpoint", function="export"),
    "import": Command("pair.commands", "make a pair from two plain fairseq checkpoints", function="import_pair"),
    "average": Command("pair.commands", "average the weights of several checkpoints", function="average"),
    "experiment": Command("experiment.run", "compare several settings and seeds in one table", False, True),
    "report": Command("report.command", "write one page of pictures, scores and examples of runs"),
    "attention": Command("report.attention", "draw pictures of attention"),
    "vectors": Command("data.vectors", "train word vectors on preprocessed text", False),
    "demo": Command("pipeline.demo", "run the whole pipeline on the embedded corpus", False, True),
    "toy-corpus": Command("toy_corpus.corpus", "write the embedded corpus, whose probabilities are known", False),
}
# The pipeline runs these modules as steps, each in a process of its own; some need no fairseq.
STEPS = {
    name: Command(name, "", not name.startswith("pipeline."))
    for name in (
        "pair.evaluate", "pair.generate", "pair.synthetic", "pipeline.probe", "plugin.check", "plugin.label_model",
        "report.demo",
    )
}  # fmt: skip


def usage() -> str:
    """The text of ``dual-fairseq --help``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: dual-fairseq COMMAND [options]\n\n"
        f"Train two translation models as a pair, and use the pair.\n\n{commands}\n\n"
        f"dual-fairseq COMMAND --help explains a command.\nVersion {dual_fairseq.__version__}"
    )


@contextmanager
def policy(name: str, goes_on: bool = False) -> Iterator[None]:
    """Libraries print only warnings; interruptions, closed pipes and full disks end the command without a traceback.

    Args:
        name: the command's name.
        goes_on: see :class:`Command`.

    Raises:
        UserError: a file cannot be read or written, or there is not enough memory.
    """
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a table may have an arrow that the terminal cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    # Before fairseq is imported: it would send its log to standard output.
    logging.basicConfig(level=logging.WARNING, format="dual_fairseq: warning: %(message)s", force=True)
    quieten_libraries()
    try:
        with stoppable(), enough_memory():
            try:
                yield
            finally:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has closed it, like `head`
        _forget_output()
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as interruption:
        number = interruption.number if isinstance(interruption, Stopped) else signal.SIGINT
        say_stopped(name, goes_on, number)
        sys.exit(128 + number)
    except OSError as error:
        if error.filename is None:
            _forget_output()
        raise UserError(f"{error.filename or 'input or output'}: {error.strerror or error}") from error


def say_stopped(name: str, goes_on: bool, number: int) -> None:
    """Print which signal stopped a command."""
    note = "; the same command continues" if goes_on else ""
    if goes_on or number != signal.SIGINT:  # Ctrl-C is the usual way to end a filter
        print(f"dual-fairseq {name}: stopped by {signal.Signals(number).name}{note}", file=sys.stderr, flush=True)


def _forget_output() -> None:
    """Let Python's last flush of standard output succeed after a flush that failed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Replace closed standard streams: using one then fails, and no file gets its number."""
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name.

    Raises:
        SystemExit: with status 2 for an unknown command, with a message for a :class:`UserError`.
    """
    name, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = (COMMANDS | STEPS).get(name)
    with policy(name, command is not None and command.goes_on):
        if command is not None:
            with at_once(partial(say_stopped, name, command.goes_on)):
                run = loaded(command, asks_for_help(options))
            run(options)
        elif name in ("-h", "--help"):
            print(usage())
        elif name == "--version":
            print(dual_fairseq.__version__)
        else:
            hint = did_you_mean(name, COMMANDS) or "; dual-fairseq --help lists the commands"
            print(f"dual_fairseq: error: {name}: there is no such command{hint}", file=sys.stderr)
            sys.exit(2)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the command's own arguments, which end at ``--``."""
    own = Parser.split(arguments)[0]
    return "-h" in own or "--help" in own


def loaded(command: Command, helps: bool) -> Callable[[Sequence[str]], None]:
    """A command of the table, ready to run.

    Args:
        command: a command of the table.
        helps: whether it only explains itself, which needs no fairseq.

    Raises:
        UserError: fairseq is not installed.
    """
    if command.loads_fairseq and not helps:
        try:
            dual_fairseq.register()
        except ModuleNotFoundError as error:
            if error.name != "fairseq":
                raise
            raise UserError(str(error)) from error
    return getattr(importlib.import_module(f"dual_fairseq.{command.module}"), command.function)


if __name__ == "__main__":
    main()
