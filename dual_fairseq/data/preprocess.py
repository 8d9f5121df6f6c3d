"""From raw parallel text to the directories that training reads; ``scripts/preprocess.sh`` is its command line.

Four stages, each in a directory of its own that appears only when it is complete:

- text: clean and tokenise (``raw/``, ``tokenized/``)
- bpe: cut all text into subwords: by byte pair encoding learned on the training text, into characters, or not at all
  (``bpe/``, ``segmented/``)
- dual: dictionaries of the training text and the binarized pair (``dual/``)
- lm: monolingual text, binarized with the same dictionaries (``lm/<language>/``)

BPE and dictionaries may be another such folder's instead (``--like``), whose models then fit.

A finished stage leaves a note under ``.stages/`` of the options and inputs that it was made from.
"""

import argparse
import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..common.errors import UserError
from ..common.files import sha256
from .clean import Rules, Survey, clean_corpus, parallel, say, survey
from .text import SEPARATOR, SUBWORDS, VISIBLE_SPACE, characters, load_bpe

LINES_A_PROCESS = 100_000  # fairseq's binarizer gains nothing from more processes than that
BPE_SIZE = 8000
SYNTHETIC = "synthetic"
TRAINING = ("train", SYNTHETIC)  # text that may lose lines; the rest is what scores are computed on
WORDS, WORD_THRESHOLD = 30_000, 2  # of --subword word; words seen once become <unk>, or <unk> would not be trained
UNNOTED = {"subword": "bpe", "vocab-size": 0}  # settings that notes of earlier versions leave out


@dataclass(frozen=True)
class Stage:
    """A step of the work: its directories below DEST, what it depends on, and the function that does it.

    ``work`` writes the outputs into the directory it is given and returns what is worth recording.
    """

    name: str
    outputs: tuple[str, ...]
    settings: dict[str, Any]
    work: Callable[[Path], dict[str, Any]]


class Preprocessing:
    """All stages for one DEST.

    Args:
        options: the parsed command line, see :func:`get_parser`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dest = Path(options.dest)
        self.languages: tuple[str, str] = (options.source_lang, options.target_lang)
        self.rules = Rules(options.tokenizer, options.lowercase, options.max_length, options.max_ratio)
        self.held_out_rules = Rules(options.tokenizer, options.lowercase, options.max_length, keep_long=True)
        # Per split its pieces, each with a file a side.
        self.parts = {
            split: [[find_side(prefix, language) for language in self.languages] for prefix in prefixes]
            for split, prefixes in (
                ("train", options.train),
                (SYNTHETIC, options.synthetic),
                ("valid", [options.valid]),
                ("test", [options.test]),
            )
            if prefixes and prefixes != [None]
        }
        self.splits = [split for split in self.parts if split != SYNTHETIC]
        self.like = Path(options.like) if options.like else None
        for file in [*self._codes(self.like), *self._dictionaries(self.like)] if self.like else []:
            if not file.is_file():
                raise UserError(f"--like {self.like}: {file} is gone; run the command that made the folder once more")
        extra = dict(zip(self.languages, (options.extra_mono_source, options.extra_mono_target), strict=True))
        self.mono = {language: [[Path(file)] for file in files] for language, files in extra.items() if files}

    def run(self) -> None:
        """Do what is not done yet.

        Raises:
            UserError: an input is missing or bad, or DEST was made from something else, or is in use.
        """
        surveys = self._survey()
        own = self.dest / ".stages"
        taken = [name for name in ("raw", "tokenized", "bpe", "segmented", "dual", "lm") if (self.dest / name).exists()]
        if taken and not own.exists():
            raise UserError(f"{self.dest}: holds {taken[0]}, not made by this command; choose another --dest")
        own.mkdir(parents=True, exist_ok=True)
        with open(own / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.dest}: another run is at work there; wait for it or choose another --dest"
                ) from None
            for stale in (*self.dest.glob(".partial.*"), *own.glob(".partial.*")):  # of a run that was killed
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            stages = self._stages(surveys)
            done = self._finished(stages, own)
            if len(done) < len(stages):  # the record is of a whole folder
                (self.dest / "preprocess.json").unlink(missing_ok=True)
            for stage in stages:
                if stage.name in done:
                    say(f"{stage.name}: done before")
                else:
                    done[stage.name] = self._do(stage, own)
            self._record(surveys, {name: note["result"] for name, note in done.items()})

    # --- stages ---

    def _stages(self, surveys: dict[str, dict[str, list[Survey]]]) -> list[Stage]:
        options = self.options
        text = {
            "source-lang": self.languages[0],
            "target-lang": self.languages[1],
            "tokenizer": options.tokenizer,
            "lowercase": options.lowercase,
            "max-length": options.max_length,
            "max-ratio": options.max_ratio,
            "on-bad-line": options.on_bad_line,
        }
        for split, sides in surveys.items():
            for language, files in sides.items():
                text[f"text of {split}.{language}"] = [file.sha256 for file in files]
        bpe = {"subword": options.subword}
        if options.subword == "bpe":
            bpe |= {"bpe-size": options.bpe_size, "joint-bpe": options.joint_bpe}
        dual = {
            "joined-dictionary": options.joined_dictionary,
            "vocab-threshold": options.vocab_threshold,
            "vocab-size": options.vocab_size,
        }
        if SYNTHETIC in self.parts:
            dual["upsample"] = options.upsample
        if self.like:
            bpe["BPE codes of --like"] = [sha256(path) for path in self._codes(self.like)]
            dual["dictionaries of --like"] = [sha256(path) for path in self._dictionaries(self.like)]
        return [
            Stage("text", ("raw", "tokenized"), text, self._text),
            Stage("bpe", ("bpe", "segmented"), bpe, self._bpe),
            Stage("dual", ("dual",), dual, self._dual),
            Stage("lm", ("lm",), {}, self._lm),
        ]

    def _finished(self, stages: list[Stage], own: Path) -> dict[str, Any]:
        """The notes of the stages that need not be done; those of the others are removed."""
        done: dict[str, Any] = {}
        for stage in stages:
            note = own / f"{stage.name}.json"
            if not note.exists():
                continue
            found = json.loads(note.read_text(encoding="utf-8"))
            if changed := _differences(found["settings"], stage.settings):
                if not self.options.overwrite:
                    raise UserError(
                        f"{self.dest}: made with other input or options ({', '.join(changed)}); "
                        "pass --overwrite to make it anew from there, or choose another --dest"
                    )
            elif len(done) == stages.index(stage) and all((self.dest / name).is_dir() for name in stage.outputs):
                done[stage.name] = found
        for stage in stages:
            if stage.name not in done:
                (own / f"{stage.name}.json").unlink(missing_ok=True)
        return done

    def _do(self, stage: Stage, own: Path) -> dict[str, Any]:
        say(f"{stage.name}: started")
        # A path relative to DEST: fairseq splits lists of paths at commas, which DEST may contain.
        partial = Path(tempfile.mkdtemp(prefix=".partial.", dir=self.dest))
        try:
            for name in stage.outputs:
                (partial / name).mkdir()
            note = {"settings": stage.settings, "result": stage.work(partial)}
            for name in stage.outputs:
                if (self.dest / name).exists():
                    shutil.rmtree(self.dest / name)
                (partial / name).rename(self.dest / name)
            write_json(own / f"{stage.name}.json", note)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return note

    def _survey(self) -> dict[str, dict[str, list[Survey]]]:
        surveys: dict[str, dict[str, list[Survey]]] = {}
        for split, parts in self.parts.items():
            surveys[split] = {language: [] for language in self.languages}
            for files in parts:
                found = [survey(file) for file in files]
                if found[0].lines != found[1].lines:
                    raise UserError(
                        f"{files[0]} has {found[0].lines:,} lines and {files[1]} has {found[1].lines:,}: "
                        "they are no translations of each other line by line; give files of equal length"
                    )
                for language, one in zip(self.languages, found, strict=True):
                    surveys[split][language].append(one)
        for language, parts in self.mono.items():
            surveys.setdefault("mono", {})[language] = [survey(file) for (file,) in parts]
        return surveys

    def _text(self, out: Path) -> dict[str, Any]:
        options, counts = self.options, {}

        def clean(name: str, parts: list[list[Path]], languages: Sequence[str], rules: Rules, **more: Any) -> None:
            raw, tokenized = (
                [out / folder / f"{name.partition('.')[0]}.{language}" for language in languages]
                for folder in ("raw", "tokenized")
            )
            counts[name] = clean_corpus(
                parts,
                languages,
                rules,
                raw,
                tokenized,
                out / "raw" / f"{name}.dropped.tsv",
                refuse=options.on_bad_line == "refuse",
                workers=options.workers,
                label=name,
                **more,
            )
            if rules.keep_long and counts[name]["read"] > counts[name]["kept"]:
                say(f"warning: {name}: lines were dropped, so scores do not compare with those on the whole set")

        for split, parts in self.parts.items():
            clean(split, parts, self.languages, self.rules if split in TRAINING else self.held_out_rules)
        for language, parts in self.mono.items():
            held_out = frozenset(
                line
                for split in self.parts
                if split not in TRAINING
                for line in _lines(out / "tokenized" / f"{split}.{language}")
            )
            clean(f"mono.{language}", parts, [language], self.rules, held_out=held_out)
        return counts

    def _bpe(self, out: Path) -> dict[str, Any]:
        size, tokenized = self.options.bpe_size, self.dest / "tokenized"
        names = sorted(path.name for path in tokenized.iterdir())
        if self.options.subword == "char":
            for name in names:
                signs = sum(line.count(VISIBLE_SPACE) for line in _lines(tokenized / name))
                segment_file(tokenized / name, lambda: characters, out / "segmented" / name, self.options.workers)
                say(f"char: {name} segmented" + (f"; {VISIBLE_SPACE} made _ in {signs:,} places" if signs else ""))
            return {"type": "char", "space": VISIBLE_SPACE}
        if self.options.subword == "word" or not size:
            for name in names:
                shutil.copyfile(tokenized / name, out / "segmented" / name)
            return {"type": "word" if self.options.subword == "word" else None}
        train = [tokenized / f"train.{language}" for language in self.languages]
        codes = self._codes(out)
        if self.like:
            for found, code in zip(self._codes(self.like), codes, strict=True):
                shutil.copyfile(found, code)
            merges = [sum(1 for _ in _lines(code)) - 1 for code in codes]  # below the version
        elif self.options.joint_bpe:
            merges = [learn_bpe(train, size, codes[0], "joint")] * 2
            shutil.copyfile(codes[0], codes[1])
        else:
            sides = zip(train, codes, self.languages, strict=True)
            merges = [learn_bpe([text], size, code, language) for text, code, language in sides]
        for name in names:
            code = out / "bpe" / f"codes.{name.rpartition('.')[2]}"
            segment_file(tokenized / name, partial(load_bpe, code), out / "segmented" / name, self.options.workers)
            say(f"bpe: {name} segmented")
        return {
            "type": "subword-nmt",
            "joint": self.options.joint_bpe,
            "size": size,
            "merges": dict(zip(self.languages, merges, strict=True)),
            "separator": f"{SEPARATOR} ",
        }

    def _dual(self, out: Path) -> dict[str, Any]:
        from fairseq.data import Dictionary

        source, target = self.languages
        arguments = ["--source-lang", source, "--target-lang", target]
        arguments += ["--thresholdsrc", str(self.options.vocab_threshold)]
        arguments += ["--thresholdtgt", str(self.options.vocab_threshold)]
        texts = {split: self.dest / "segmented" / split for split in self.splits}
        if size := self.options.vocab_size:
            size += Dictionary().nspecial  # fairseq counts its own symbols too
            arguments += ["--nwordssrc", str(size), "--nwordstgt", str(size)]
        if self.options.joined_dictionary:
            arguments.append("--joined-dictionary")
        largest = self.dest / "segmented" / f"train.{source}"
        given = [out / f"dict.{language}.txt" for language in self.languages]
        if self.like:
            for found, dictionary in zip(self._dictionaries(self.like), given, strict=True):
                shutil.copyfile(found, dictionary)
        elif SYNTHETIC in self.parts:
            # dictionaries are those of the real text alone, so that models trained on it fit
            train = ["--trainpref", str(texts["train"].relative_to(self.dest)), "--dict-only"]
            self._fairseq_preprocess(out / "dual", [*arguments, *train], largest)
            for made, dictionary in zip(self._dictionaries(out), given, strict=True):
                made.rename(dictionary)
        if SYNTHETIC in self.parts:
            texts["train"] = self._with_synthetic(out)
            largest = texts["train"].with_suffix(f".{source}")
        if self.like or SYNTHETIC in self.parts:
            arguments = ["--source-lang", source, "--target-lang", target]
            for option, dictionary in zip(("--srcdict", "--tgtdict"), given, strict=True):
                arguments += [option, str(dictionary.relative_to(self.dest))]
        for split, prefix in texts.items():
            arguments += [f"--{split}pref", str(prefix.relative_to(self.dest))]
        self._fairseq_preprocess(out / "dual", arguments, largest)
        for split, prefix in texts.items():
            for language in self.languages:
                text = prefix.with_name(f"{prefix.name}.{language}")
                _check_size(out / "dual" / f"{split}.{source}-{target}.{language}", text)
        symbols, unknown = {}, {}
        for language in self.languages:
            known = {line.rpartition(" ")[0] for line in _lines(out / "dual" / f"dict.{language}.txt")}
            symbols[language] = len(known)
            for split in set(self.parts) - ({"train"} if self.like is None else set()):
                text = self.dest / "segmented" / f"{split}.{language}"
                words = [word for line in _lines(text) for word in line.split()]
                unknown[f"{split}.{language}"] = round(sum(word not in known for word in words) / len(words), 5)
        return {
            "joined": self.options.joined_dictionary,
            "symbols": symbols,
            "unknown_share": dict(sorted(unknown.items())),
        }

    def _codes(self, folder: Path) -> list[Path]:
        """Of BPE, a file a side; none where the tokens are not BPE's."""
        bpe = self.options.subword == "bpe" and self.options.bpe_size
        return [folder / "bpe" / f"codes.{language}" for language in self.languages] if bpe else []

    def _dictionaries(self, folder: Path) -> list[Path]:
        """A file a side."""
        return [folder / "dual" / f"dict.{language}.txt" for language in self.languages]

    def _with_synthetic(self, out: Path) -> Path:
        """The training text: real pairs, as often as asked for, and synthetic ones; gives its prefix."""
        for language in self.languages:
            real, synthetic = (self.dest / "segmented" / f"{part}.{language}" for part in ("train", SYNTHETIC))
            with open(out / f"train.{language}", "wb") as both:
                for text in [real] * self.options.upsample + [synthetic]:
                    with open(text, "rb") as file:
                        shutil.copyfileobj(file, both)
        return out / "train"

    def _lm(self, out: Path) -> dict[str, Any]:
        sentences: dict[str, Any] = {}
        for language in self.languages:
            texts = {split: self.dest / "segmented" / f"{split}.{language}" for split in self.splits}
            if language in self.mono:
                with open(out / f"train.{language}", "wb") as both:
                    for text in (texts["train"], self.dest / "segmented" / f"mono.{language}"):
                        with open(text, "rb") as file:
                            shutil.copyfileobj(file, both)
                texts["train"] = out / f"train.{language}"
            arguments = ["--only-source", "--srcdict", f"dual/dict.{language}.txt"]
            for split, text in texts.items():
                arguments += [f"--{split}pref", str(text.relative_to(self.dest))]
            (out / "lm" / language).mkdir()
            self._fairseq_preprocess(out / "lm" / language, arguments, texts["train"])
            sentences[language] = {
                split: _check_size(out / "lm" / language / split, text) for split, text in texts.items()
            }
            say(f"lm: {language}: {sentences[language]['train']:,} training sentences")
        return sentences

    def _fairseq_preprocess(self, destination: Path, arguments: list[str], largest: Path) -> None:
        """Run fairseq-preprocess in this process (its start alone takes seconds), in DEST, with its usual log."""
        from fairseq import options
        from fairseq_cli import preprocess

        workers = min(self.options.workers, 1 + sum(1 for _ in _lines(largest)) // LINES_A_PROCESS)
        relative = str(destination.relative_to(self.dest))
        arguments = [*arguments, "--destdir", relative, "--workers", str(workers)]
        handlers = list(preprocess.logger.handlers)
        preprocess.logger.propagate = False  # its log goes to the file beside the data, not to the terminal
        with _working_directory(self.dest):
            try:
                preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
            finally:
                preprocess.logger.propagate = True
                for handler in set(preprocess.logger.handlers) - set(handlers):  # the log file of this run
                    preprocess.logger.removeHandler(handler)
                    handler.close()

    # --- record ---

    def _record(self, surveys: dict[str, dict[str, list[Survey]]], results: dict[str, Any]) -> None:
        import fairseq

        options = self.options
        paths = {split: list(map(list, zip(*parts, strict=True))) for split, parts in self.parts.items()}
        inputs: dict[str, list[dict[str, Any]]] = {}
        for split, sides in surveys.items():
            for language, files in sides.items():
                names = (
                    [file for (file,) in self.mono[language]]
                    if split == "mono"
                    else paths[split][self.languages.index(language)]
                )
                inputs[f"{split}.{language}"] = [
                    {"file": str(name), **found._asdict()} for name, found in zip(names, files, strict=True)
                ]
        write_json(
            self.dest / "preprocess.json",
            {
                "source": self.languages[0],
                "target": self.languages[1],
                "tokenizer": options.tokenizer,
                "lowercase": options.lowercase,
                "subword": options.subword,
                "bpe": results["bpe"],
                "dictionary": results["dual"],
                "counts": results["text"],
                "lm_sentences": results["lm"],
                "inputs": inputs,
                "options": {
                    key.replace("_", "-"): value
                    for key, value in sorted(vars(options).items())
                    if key not in ("dest", "workers", "overwrite")
                },
                "versions": {
                    "python": platform.python_version(),
                    **{name: metadata.version(name) for name in ("sacremoses", "subword-nmt")},
                    "fairseq": fairseq.__version__,
                },
            },
        )
        if (bpe := results["bpe"])["type"] == "subword-nmt":
            merges = f"{bpe['merges'][self.languages[0]]:,}"
            merges += " for both languages" if bpe["joint"] else f" and {bpe['merges'][self.languages[1]]:,}"
            say(f"BPE merges: {merges}")
        dictionary = results["dual"]
        say("dictionaries: " + ", ".join(f"{language} {n:,} symbols" for language, n in dictionary["symbols"].items()))
        say(
            "unknown symbols: "
            + ", ".join(f"{name} {share:.2%}" for name, share in dictionary["unknown_share"].items())
        )
        say(f"ready: {self.dest / 'dual'} for the pair, {self.dest / 'lm'}/<language> for the language models")


# --- byte pair encoding ---------------------------------------------------------------------------------------------


def learn_bpe(texts: list[Path], size: int, codes: Path, label: str) -> int:
    """Learn at most ``size`` merges on the texts together, write them to ``codes``, and return how many there are.

    Raises:
        UserError: there is nothing to merge.
    """
    from subword_nmt import learn_bpe as subword_nmt

    words = Counter(word for text in texts for line in _lines(text) for word in line.split(" "))
    pairs: Counter[str] = Counter()
    for word, count in words.items():
        for i in range(len(word) - 1):
            pairs[word[i : i + 2]] += count
    if not pairs or max(pairs.values()) < 2:
        raise UserError(
            f"{texts[0]}: no two characters occur together twice, so there is no BPE to learn; "
            "give more text or pass --bpe-size 0"
        )
    with open(codes, "w", encoding="utf-8", newline="\n") as file:
        output = _MergeCounter(file, label)
        subword_nmt.learn_bpe([f"{word} {count}" for word, count in words.items()], output, size, is_dict=True)
    if output.merges < size:
        say(
            f"bpe: {label}: only {output.merges:,} merges instead of {size:,}: no further pair occurs twice in the text"
        )
    return output.merges


class _MergeCounter:
    """A file that counts the merges written to it and reports progress in lines."""

    def __init__(self, file: IO[str], label: str) -> None:
        self.merges, self._file, self._label = 0, file, label

    def write(self, text: str) -> None:
        self._file.write(text)
        if not text.startswith("#version"):
            self.merges += 1
            if self.merges % 2000 == 0:
                say(f"bpe: {self._label}: {self.merges:,} merges learned")


def segment_file(text: Path, make: Callable[[], Callable[[str], str]], output: Path, workers: int) -> None:
    """Segment a tokenised text line by line.

    Args:
        text: the tokenised text.
        make: makes what segments a line, once in each process.
        output: the file to write.
        workers: processes.
    """

    def of_block() -> Callable[[list[str]], list[str]]:
        segment = make()
        return lambda block: [segment(line) for line in block]

    with open(output, "w", encoding="utf-8", newline="\n") as file:
        for block in parallel(of_block, _blocks(text), workers):
            file.writelines(line + "\n" for line in block)


# --- small tools ----------------------------------------------------------------------------------------------------


def find_side(prefix: str, language: str) -> Path:
    """PREFIX.LANGUAGE, or PREFIX.LANGUAGE.gz where only that exists.

    Raises:
        UserError: there is neither.
    """
    plain = Path(f"{prefix}.{language}")
    packed = Path(f"{prefix}.{language}.gz")
    for path in (plain, packed):
        if path.exists():
            return path
    raise UserError(f"{plain}: no such file, nor {packed.name}; give the prefix before .{language}")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that it is whole or not there at all."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".partial.", delete=False) as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def _blocks(path: Path) -> Iterator[list[str]]:
    lines = _lines(path)
    while block := list(islice(lines, 1000)):
        yield block


def _check_size(prefix: Path, text: Path) -> int:
    """The number of sentences in a binarized file, which must be that of its text."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    found, expected = len(MMapIndexedDataset(str(prefix))), sum(1 for _ in _lines(text))
    if found != expected:
        raise RuntimeError(f"fairseq-preprocess made {found} sentences of the {expected} lines of {text}")
    return found


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    old = {**{key: value for key, value in UNNOTED.items() if key in new}, **old}
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [key if " " in key else f"--{key} {old.get(key)} -> {new.get(key)}" for key in changed]


@contextlib.contextmanager
def _working_directory(path: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


# --- command line ---------------------------------------------------------------------------------------------------


def get_parser() -> argparse.ArgumentParser:
    """The options of ``scripts/preprocess.sh``, whose --help explains them."""
    parser = argparse.ArgumentParser(prog="preprocess", allow_abbrev=False)
    parser.add_argument("-s", "--source-lang", required=True)
    parser.add_argument("-t", "--target-lang", required=True)
    parser.add_argument("--train", required=True, action="append")
    parser.add_argument("--synthetic", action="append", default=[])
    parser.add_argument("--upsample", type=int, default=1)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--test")
    parser.add_argument("--dest", required=True)
    parser.add_argument("--like")
    parser.add_argument("--tokenizer", choices=("moses", "none"))
    parser.add_argument("--lowercase", action="store_true", default=None)
    parser.add_argument("--subword", choices=tuple(SUBWORDS))
    parser.add_argument("--bpe-size", type=int)
    parser.add_argument("--joint-bpe", action=argparse.BooleanOptionalAction)
    parser.add_argument("--joined-dictionary", action=argparse.BooleanOptionalAction)
    parser.add_argument("--vocab-threshold", type=int)
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--extra-mono-source", action="append", default=[])
    parser.add_argument("--extra-mono-target", action="append", default=[])
    parser.add_argument("--max-length", type=int, default=250)
    parser.add_argument("--max-ratio", type=float, default=0.0)
    parser.add_argument("--on-bad-line", choices=("drop", "refuse"), default="drop")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--overwrite", action="store_true")
    return parser


# What --like settles: how text becomes tokens, and tokens numbers.
LIKE = (
    "tokenizer",
    "lowercase",
    "subword",
    "bpe-size",
    "joint-bpe",
    "joined-dictionary",
    "vocab-threshold",
    "vocab-size",
)


def _take_over(options: argparse.Namespace) -> None:
    """Give the options of LIKE the values that the folder ``--like`` was made with.

    Raises:
        UserError: it is not a folder of this command's, is of other languages, or an option says otherwise.
    """
    like = Path(options.like)
    try:
        record = json.loads((like / "preprocess.json").read_text(encoding="utf-8"))
        languages = {record["source"], record["target"]}
        taken = {name: (UNNOTED | record["options"])[name] for name in LIKE}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--like {like}: not a folder that this command has finished; give the --dest of one") from None
    if languages != {options.source_lang, options.target_lang}:
        raise UserError(
            f"--like {like}: is of {record['source']} and {record['target']}; "
            f"give a folder of {options.source_lang} and {options.target_lang}"
        )
    if like.resolve() == Path(options.dest).resolve():
        raise UserError(f"--like {like}: is --dest itself; give two folders")
    for name, value in taken.items():
        given = getattr(options, attribute := name.replace("-", "_"))
        if given is not None and given != value:
            there, here = (("off", "on")[v] if isinstance(v, bool) else v for v in (value, given))
            raise UserError(f"--like {like}: was made with another --{name} ({there}, not {here}); leave that out")
        setattr(options, attribute, value)


def _complete(options: argparse.Namespace) -> None:
    """Give the options that were left out the values that ``--subword`` implies.

    Raises:
        UserError: an option of BPE goes with another kind.
    """
    options.subword = options.subword or "bpe"
    options.lowercase, options.joined_dictionary = bool(options.lowercase), bool(options.joined_dictionary)
    words = options.subword == "word"
    if options.subword != "bpe" and (options.bpe_size is not None or options.joint_bpe is not None):
        raise UserError(f"--bpe-size, --joint-bpe and --separate-bpe: not with --subword {options.subword}")
    implied = {
        "tokenizer": "none" if options.subword == "char" else "moses",
        "vocab_threshold": WORD_THRESHOLD if words else 0,
        "vocab_size": WORDS if words else 0,
        **({"bpe_size": BPE_SIZE, "joint_bpe": True} if options.subword == "bpe" else {}),
    }
    for name, value in implied.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Preprocess as the command line says.

    Raises:
        UserError: the user has something to mend.
    """
    options = get_parser().parse_args(arguments)
    for language in (options.source_lang, options.target_lang):
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", language):
            raise UserError(f"language code {language!r}: use letters, digits and _ only, as in de or zh_CN")
    if options.source_lang == options.target_lang:
        raise UserError(f"source and target language are both {options.source_lang}; give two, as in -s de -t en")
    if options.like:
        _take_over(options)
    else:
        _complete(options)
    if options.joined_dictionary and options.bpe_size and not options.joint_bpe:
        raise UserError("--joined-dictionary needs --joint-bpe: separate BPE makes no common symbols")
    Preprocessing(options).run()
