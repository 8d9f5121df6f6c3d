"""The options of ``dual-fairseq preprocess``: their help, values that follow from other options, refused values."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.folders import RECORD
from ..common.options import add_languages, add_workers, whole_number
from ..common.records import read_record
from ..common.segmentation import ANNOTATIONS, POST_PROCESS, by_language, shared
from ..common.settings import SHARED_WORDS
from .labels import check_options, check_tokenizers
from .repeated import SHORT
from .subword import require_sentencepiece

DESCRIPTION = """\
Make a pair's training data from plain text, one sentence per line: clean, tokenise, segment and binarize it.

A PREFIX stands for two files, PREFIX.<source> and PREFIX.<target>, plain or with .gz at the end. Line i of one is the
translation of line i of the other."""

EPILOG = """\
A line is bad if a side is empty or not UTF-8, or holds NUL or another control character, a word of over 1,000
characters, or a word that fairseq reserves. In training text, a line is also bad if it is too long or if the lengths of
the sides differ too much. A bad line is dropped from both sides. Files of unequal length are always refused.

These characters are normalised and counted: Windows line ends, byte order marks, Unicode line separators, HTML entities
(resolved once), soft hyphens and invisible characters (dropped), characters that are not composed (Unicode's NFC). All
commands that read text for the models do the same.

The round trip: valid and test text is converted to the models' tokens and back to text. The result should be the same
text. Its BLEU against the original is the most that a translation can reach. Below 99.5 a warning says what to do.

The command writes to DEST:
  dual/                      fairseq-preprocess's output for the pair, for both directions
  lm/<lang>/                 the same for a language model, with the pair's dictionary of that language
  bpe/codes.<lang>           BPE codes, for fairseq-interactive --bpe subword_nmt --bpe-codes; with --subword
                             sentencepiece bpe/sentencepiece.<lang>.model, for --bpe sentencepiece --sentencepiece-model
  raw/<split>.<lang>         the cleaned text before tokenisation, with the same lines as dual/: references for
                             sacreBLEU; raw/<split>.dropped.tsv lists the dropped lines
  tokenized/, segmented/     the text after tokenisation, and as the models' tokens
  preprocess.json            a record: options, input files, counts, round trips, versions

If the command was stopped, run it again: it continues after the last finished stage. If options or input files have
changed, it stops with an error, unless --overwrite is given."""

OUTPUTS = ("raw", "tokenized", "bpe", "segmented", "dual", "lm")  # the folders that DEST gets
WORDS, WORD_THRESHOLD = 30_000, 2  # of --subword word; words seen once become <unk>, so that <unk> is trained

# The options that --like decides: how text becomes tokens, and tokens become numbers.
LIKE = {
    "normalized?": bool, "tokenizer": ({str: str}, str), "normalize-punctuation?": bool, "lowercase": bool,
    "subword": ({str: str}, str), "bpe-size": (None, int), "joint-bpe": (None, bool), "joined-dictionary": bool,
    "vocab-threshold": ({str: int}, int), "vocab-size": ({str: int}, int),
}  # fmt: skip
BY_LANGUAGE = ("tokenizer", "subword", "vocab_threshold", "vocab_size")  # each side may have its own value
EARLIER = {"normalized": False, "normalize-punctuation": True}  # earlier versions did not record these


def number(text: str) -> float:
    """A type for argparse: a number that is not negative."""
    if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", text):
        raise argparse.ArgumentTypeError(f"give a number that is 0 or more, such as 2.5, not '{text}'")
    return float(text)


def get_parser() -> Parser:
    """The command's parser. None: the option was not given, and its value follows from other options."""
    parser = Parser("preprocess", DESCRIPTION)
    parser.epilog = EPILOG
    add_languages(parser, required=True)
    parser.add_argument(
        "--train", action="append", default=[], metavar="PREFIX",
        help="training text; several --train are used together; needed, unless --like is given without --synthetic",
    )  # fmt: skip
    parser.add_argument("--valid", metavar="PREFIX", help="validation text; needed, like --train")
    parser.add_argument("--test", metavar="PREFIX", help="test text")
    parser.add_argument("--dest", required=True, metavar="DEST", help="the folder to make (see below)")
    add_workers(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the files that other input or options made")
    _add_token_options(parser)
    _add_more_text(parser)
    lines = parser.add_argument_group("bad lines (see below)")
    lines.add_argument(
        "--on-bad-line", choices=("drop", "refuse"), default="drop",
        help="drop them and count them by reason, or stop at the first (default %(default)s)",
    )  # fmt: skip
    lines.add_argument(
        "--drop-held-out", action="store_true",
        help="remove training pairs if one of their sides is also in the valid or test text; lines of fewer than "
        f"{SHORT} characters are ignored",
    )  # fmt: skip
    lines.add_argument(
        "--max-length", type=whole_number(0), default=250, metavar="WORDS",
        help="longest line of training and extra text, in words (default %(default)s; 0: any). Longer lines of valid "
        "and test text are kept and counted",
    )  # fmt: skip
    lines.add_argument(
        "--max-ratio", type=number, default=0.0, metavar="R",
        help="largest ratio between the lengths of the two sides of a training pair, in words (default 0: any)",
    )  # fmt: skip
    return parser


def _add_token_options(parser: Parser) -> None:
    """Add the options for tokens and dictionaries."""
    words = parser.add_argument_group("tokenisation")
    words.add_argument(
        "--tokenizer", choices=("moses", "none"),
        help="moses: Moses tokenisation, by sacremoses; none: white space separates the words (default moses, but "
        "none with --subword sentencepiece and char)",
    )  # fmt: skip
    _add_by_side(words, "tokenizer", ("moses", "none"))
    words.add_argument(
        "--normalize-punctuation", action="store_true", default=None,
        help="with moses: first replace typographic quotation marks, dashes and similar characters by Moses' rules. "
        "They are also replaced in text to translate; the references keep them",
    )  # fmt: skip
    words.add_argument(
        "--lowercase", action="store_true", default=None, help="lower-case everything, the references too"
    )
    tokens = parser.add_argument_group("the models' tokens")
    tokens.add_argument(
        "--subword", choices=tuple(POST_PROCESS),
        help="bpe: byte pair encoding, learned on the training text; sentencepiece: pieces of SentencePiece, also "
        "learned, for any language and script (pip install sentencepiece); char: each character is a token, a space "
        "is ▁; word: the words themselves, rare ones as <unk>; label: each line is one symbol, the label of the other "
        "side, and is not changed; tag: each line has a tag for each word of the other side, which is then word with "
        "--tokenizer none (default bpe)",
    )  # fmt: skip
    _add_by_side(tokens, "subword", tuple(POST_PROCESS))
    tokens.add_argument(
        "--bpe-size", type=whole_number(0), metavar="N",
        help="merges to learn (default: by the number of pairs); fewer, with a message, if no pair of symbols occurs "
        "twice any more; 0: no BPE, for text that is already split into pieces",
    )  # fmt: skip
    both = tokens.add_mutually_exclusive_group()
    both.add_argument(
        "--joint-bpe", action="store_true", default=None,
        help="learn both languages' BPE or SentencePiece together (default, if both have the same tokenizer and "
        "subwords)",
    )  # fmt: skip
    both.add_argument(
        "--separate-bpe", dest="joint_bpe", action="store_false", default=None, help="learn one for each language"
    )
    dictionaries = parser.add_argument_group("dictionaries, made from the training text")
    both = dictionaries.add_mutually_exclusive_group()
    both.add_argument(
        "--separate-dictionaries", dest="joined_dictionary", action="store_false", default=None,
        help="one for each language (default, unless the languages share many words)",
    )  # fmt: skip
    both.add_argument(
        "--joined-dictionary", action="store_true", default=None,
        help="one for both, so that dual-fairseq train can share their embeddings; not with --separate-bpe, and not "
        "if the sides differ in tokenizer or subwords (default if the languages share "
        f"{100 * SHARED_WORDS:.0f} %% or more of their words)",
    )  # fmt: skip
    dictionaries.add_argument(
        "--vocab-threshold", type=whole_number(0), metavar="N",
        help="symbols seen fewer than N times in the training text become <unk> (default 0; 2 with --subword word, so "
        "that <unk> occurs in training)",
    )  # fmt: skip
    dictionaries.add_argument(
        "--vocab-size", type=whole_number(0), metavar="N",
        help="keep the N most frequent symbols, the others become <unk> (default 0: all; 30000 with --subword word); "
        "with --subword sentencepiece the number of pieces to learn (default: by the number of pairs; fewer if the "
        "text has fewer)",
    )  # fmt: skip


def _add_by_side(group: argparse._ArgumentGroup, name: str, choices: Sequence[str]) -> None:
    """Add the options that override ``--<name>`` for one side."""
    for side in ("source", "target"):
        group.add_argument(
            f"--{side}-{name}", choices=choices, help=f"the same for the {side} language only (default: --{name})"
        )


def _add_more_text(parser: Parser) -> None:
    like = parser.add_argument_group("more text for existing models")
    like.add_argument(
        "--like", metavar="FOLDER",
        help="use the BPE, the dictionaries and the settings of FOLDER, a DEST of these languages. Do not give options "
        "of the three sections above. Pairs and language models that were trained on FOLDER can then be trained or "
        "evaluated on the new DEST. A test set alone or monolingual text is enough",
    )  # fmt: skip
    mono = parser.add_argument_group("text for the language models")
    for side in ("source", "target"):
        mono.add_argument(
            f"--extra-mono-{side}", action="append", default=[], metavar="FILE",
            help=f"more text of the {side} language, plain or .gz, only for its language model; may be given several "
            "times. Sentences of the valid and test text are left out",
        )  # fmt: skip
    synthetic = parser.add_argument_group("pairs that models made, as dual-fairseq synthesize does")
    synthetic.add_argument(
        "--synthetic", action="append", default=[], metavar="PREFIX",
        help="more training pairs; may be given several times. BPE, dictionaries and language models do not use "
        "them, so models that were trained without these pairs still fit DEST",
    )  # fmt: skip
    synthetic.add_argument(
        "--upsample", type=whole_number(), default=1, metavar="N",
        help="repeat the real pairs N times in the training data (default %(default)s)",
    )  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; only options that the text decides (:mod:`.choices`) remain without a value.

    Raises:
        UserError: an option is wrong or a file is missing. The text itself is not read yet.
    """
    options = get_parser().parse_args(arguments)
    for language in (options.source_lang, options.target_lang):
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", language):
            raise UserError(f"language code '{language}': use only letters, digits and _, as in de or zh_CN")
    if options.source_lang == options.target_lang:
        raise UserError(f"source and target language are both '{options.source_lang}'; give two, as in -s de -t en")
    if options.upsample > 1 and not options.synthetic:
        raise UserError(f"--upsample {options.upsample}: needs synthetic text; give --synthetic too")
    for name in ("train", "valid") if options.synthetic or not options.like else ():
        if not getattr(options, name):
            why = " with --synthetic" * bool(options.like)
            raise UserError(f"--{name}: is needed{why}; give the PREFIX of text")
    texts = [*options.train, options.valid, options.test, *options.extra_mono_source, *options.extra_mono_target]
    if not any(texts):
        raise UserError(f"--like {options.like}: give the text to preprocess, for example --test PREFIX")
    check_tokenizers(options)
    _by_side(options)
    if options.like:
        _take_over(options)
    else:
        _complete(options)
    if "sentencepiece" in options.subword.values():
        require_sentencepiece()
    check_options(options)
    if options.joined_dictionary and options.bpe_size != 0 and options.joint_bpe is False:
        raise UserError("--joined-dictionary needs --joint-bpe; separate BPE makes no common symbols")
    _check_files(options)
    return options


def _by_side(options: argparse.Namespace) -> None:
    """Turn the options of :data:`BY_LANGUAGE` into dictionaries, language → value; None: no value was given."""
    languages = {"source": options.source_lang, "target": options.target_lang}
    for name in BY_LANGUAGE:
        both = getattr(options, name)
        sides = {side: vars(options).pop(f"{side}_{name}", None) for side in languages}
        setattr(options, name, {languages[side]: both if own is None else own for side, own in sides.items()})


def same_way(options: argparse.Namespace) -> bool:
    """Whether both sides have the same tokenizer and subwords."""
    return all(len(set(getattr(options, name).values())) == 1 for name in ("tokenizer", "subword"))


def _complete(options: argparse.Namespace) -> None:
    """Give the options that were left out the values that ``--subword`` implies.

    Raises:
        UserError: an option of BPE is used with another kind, or an option for common symbols but there are none.
    """
    default = ("word", "none") if "tag" in options.subword.values() else ("bpe", "moses")
    kinds = options.subword = {language: kind or default[0] for language, kind in options.subword.items()}
    options.normalized = True
    for name in ("normalize_punctuation", "lowercase"):
        setattr(options, name, bool(getattr(options, name)))
    for flag, is_given, needed in (
        ("--bpe-size", options.bpe_size is not None, ("bpe",)),
        ("--joint-bpe", options.joint_bpe is True, ("bpe", "sentencepiece")),
        ("--separate-bpe", options.joint_bpe is False, ("bpe", "sentencepiece")),
    ):
        if is_given and not set(kinds.values()).intersection(needed):
            kind = " and ".join(dict.fromkeys(kinds.values()))
            raise UserError(f"{flag} is for --subword {' and '.join(needed)}, not {kind}; leave it out")
    for language, kind in kinds.items():
        if kind in ANNOTATIONS:
            options.tokenizer[language], options.vocab_threshold[language], options.vocab_size[language] = "none", 0, 0
        if kind == "sentencepiece" and options.vocab_size[language] == 0:
            raise UserError("--vocab-size 0: is for the other kinds of --subword; give the number of pieces to learn")
        implied = {
            "tokenizer": "none" if kind in ("char", "sentencepiece") else default[1],
            "vocab_threshold": WORD_THRESHOLD if kind == "word" else 0,
            "vocab_size": {"word": WORDS, "sentencepiece": None}.get(kind, 0),
        }
        for name, value in implied.items():
            if getattr(options, name)[language] is None:
                getattr(options, name)[language] = value
    for flag, is_given in (("--joint-bpe", options.joint_bpe), ("--joined-dictionary", options.joined_dictionary)):
        if is_given and not same_way(options):
            ways = (f"{lang} {options.tokenizer[lang]} and {kind}" for lang, kind in kinds.items())
            raise UserError(
                f"{flag}: the sides have no common symbols, because their tokenizers and subwords differ "
                f"({', '.join(ways)}); leave it out, or give both sides the same"
            )
    if options.joint_bpe is None and set(kinds.values()).intersection(("bpe", "sentencepiece")):
        options.joint_bpe = same_way(options)
    if options.normalize_punctuation and "moses" not in options.tokenizer.values():
        raise UserError("--normalize-punctuation is for --tokenizer moses, not none; leave it out")


def _take_over(options: argparse.Namespace) -> None:
    """Give the options of LIKE the values that the folder ``--like`` was made with.

    Raises:
        UserError: this command has not made the folder, its languages are others, or an option differs.
    """
    like = Path(options.like)
    unfinished, fix = "not a folder that this command has finished", "give the --dest of one"
    if not (like / RECORD).is_file():
        raise UserError(f"--like {like}: {unfinished}; {fix}")
    record = read_record(like / RECORD, {"source": str, "target": str, "options": LIKE}, fix, f"--like: {unfinished}")
    languages = {record["source"], record["target"]}
    names = [name.removesuffix("?") for name in LIKE]
    values = {name: {**EARLIER, **record["options"]}[name] for name in names}
    if languages != {options.source_lang, options.target_lang}:
        raise UserError(
            f"--like {like}: has the languages {record['source']} and {record['target']}; "
            f"give a folder of {options.source_lang} and {options.target_lang}"
        )
    if like.resolve() == Path(options.dest).resolve():
        raise UserError(f"--like {like}: is --dest itself; give two folders")
    for name, value in values.items():
        asked: Any = getattr(options, attribute := name.replace("-", "_"), None)
        if attribute in BY_LANGUAGE:
            if isinstance(value, dict) and value.keys() != languages:
                raise UserError(f"--like {like}: {RECORD} is damaged (--{name} is of other languages); make it again")
            value = by_language(value, tuple(asked))
            differs = any(own not in (None, value[language]) for language, own in asked.items())
        else:
            differs = asked is not None and asked != value
        if differs:
            there, here = (("off", "on")[v] if isinstance(v, bool) else v for v in (_in_words(value), _in_words(asked)))
            raise UserError(
                f"--like {like}: was made with another --{name} ({there}, not {here}); leave the option out"
            )
        setattr(options, attribute, value)


def _in_words(value: Any) -> Any:
    """A value by language for people: ``moses``, or ``en moses, ja none``; without values that were not given."""
    if not isinstance(value, dict) or not isinstance(value := shared(value), dict):
        return value
    return ", ".join(f"{language} {own}" for language, own in value.items() if own is not None)


def _check_files(options: argparse.Namespace) -> None:
    """Raises UserError if a file of text is missing or unreadable, or DEST cannot be used."""
    prefixes = [*options.train, *options.synthetic, *filter(None, (options.valid, options.test))]
    files = []
    for prefix in prefixes:
        for language in (options.source_lang, options.target_lang):
            files.append(find_side(prefix, language))
            _check_file(files[-1])
    for file in map(Path, (*options.extra_mono_source, *options.extra_mono_target)):
        files.append(file)
        _check_file(file)
    dest = Path(options.dest)
    if ":" in options.dest or "\n" in options.dest:
        raise UserError(
            f"--dest {options.dest!r}: fairseq cannot read a path with a colon or a line end in it; choose another"
        )
    if dest.exists() and not dest.is_dir():
        raise UserError(f"--dest {dest}: not a directory; choose another")
    for file in files:
        if dest.resolve() in file.resolve().parents and file.resolve().relative_to(dest.resolve()).parts[0] in OUTPUTS:
            raise UserError(f"{file}: is a file that this command writes to --dest {dest}; choose another --dest")
    existing = next(folder for folder in (dest, *dest.resolve().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--dest {dest}: cannot be written; choose another or change its permissions")


def _check_file(file: Path) -> None:
    if not file.exists():
        raise UserError(f"{file}: no such file")
    if not file.is_file():
        raise UserError(f"{file}: not a regular file")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file}: no permission to read it")
    if not file.stat().st_size:
        raise UserError(f"{file}: the file is empty; give text with one sentence per line")


def find_side(prefix: str, language: str) -> Path:
    """PREFIX.LANGUAGE, or PREFIX.LANGUAGE.gz if only this file exists.

    Raises:
        UserError: neither file exists.
    """
    plain, packed = Path(f"{prefix}.{language}"), Path(f"{prefix}.{language}.gz")
    for path in (plain, packed):
        if path.exists():
            return path
    raise UserError(f"{plain}: no such file, nor {packed.name}; give the part of the name before .{language}")
