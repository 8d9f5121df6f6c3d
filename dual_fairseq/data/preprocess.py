"""From raw parallel text to the directories that training reads: ``dual-fairseq preprocess``.

Four stages, each in a directory of its own that appears only when it is complete:

- text: clean and tokenise (``raw/``, ``tokenized/``)
- bpe: cut all text into subwords: by byte pair encoding learned on the training text, into characters, or not at all
  (``bpe/``, ``segmented/``)
- dual: dictionaries of the training text and the binarized pair (``dual/``)
- lm: monolingual text, binarized with the same dictionaries (``lm/<language>/``)

BPE and dictionaries may be another such folder's instead (``--like``), whose models then fit.

A finished stage leaves a note under ``.stages/`` of the options and inputs that it was made from.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from ..common.dictionaries import check_dictionary_file
from ..common.errors import UserError
from ..common.files import sha256, write_json
from ..common.folders import LENGTHS
from ..common.progress import say
from ..plugin.lengths import limits_of
from ..plugin.lengths import record as lengths_record
from .binarize import check_size, concatenate, fairseq_preprocess, symbols, unknown_share
from .clean import Rules, clean_corpus
from .lines import Survey, survey, survey_pair
from .options import OUTPUTS, find_side, parse
from .resumable import Stage, locked, run_stages
from .subword import SEPARATOR, VISIBLE_SPACE, characters, count_lines, learn_bpe, load_bpe, segment_file, text_lines
from .tokenizer import rules_in_words

SYNTHETIC = "synthetic"
TRAINING = ("train", SYNTHETIC)  # text that may lose lines; the rest is what scores are computed on


class Preprocessing:
    """All stages for one DEST.

    Args:
        options: of :func:`~dual_fairseq.data.options.parse`.
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
        for file in self._dictionaries(self.like) if self.like else []:
            check_dictionary_file(file)
        extra = dict(zip(self.languages, (options.extra_mono_source, options.extra_mono_target), strict=True))
        self.mono = {language: [[Path(file)] for file in files] for language, files in extra.items() if files}

    def run(self) -> None:
        """Do the stages that are not done yet.

        Raises:
            UserError: an input is missing or bad, or DEST was made from something else, or is in use.
        """
        surveys, record = self._survey(), self.dest / "preprocess.json"
        with locked(self.dest, OUTPUTS):
            results = run_stages(self.dest, self._stages(surveys), self.options.overwrite, record)
            self._record(record, surveys, results)
        self._report(results)

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

    def _survey(self) -> dict[str, dict[str, list[Survey]]]:
        surveys: dict[str, dict[str, list[Survey]]] = {}
        for split, parts in self.parts.items():
            pairs = [survey_pair(*files) for files in parts]
            surveys[split] = {language: [pair[side] for pair in pairs] for side, language in enumerate(self.languages)}
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

        if options.tokenizer == "moses":
            say(f"Moses rules: {rules_in_words(self.languages)}")
        for split, parts in self.parts.items():
            clean(split, parts, self.languages, self.rules if split in TRAINING else self.held_out_rules)
        for language, parts in self.mono.items():
            held_out = frozenset(
                line
                for split in self.parts
                if split not in TRAINING
                for line in text_lines(out / "tokenized" / f"{split}.{language}")
            )
            clean(f"mono.{language}", parts, [language], self.rules, held_out=held_out)
        return counts

    def _bpe(self, out: Path) -> dict[str, Any]:
        size, tokenized = self.options.bpe_size, self.dest / "tokenized"
        names = sorted(path.name for path in tokenized.iterdir())
        if self.options.subword == "char":
            for name in names:
                replaced = sum(line.count(VISIBLE_SPACE) for line in text_lines(tokenized / name))
                segment_file(tokenized / name, lambda: characters, out / "segmented" / name, self.options.workers)
                say(f"char: {name} segmented" + (f"; {VISIBLE_SPACE} became _ {replaced:,} times" if replaced else ""))
            return {"type": "char", "space": VISIBLE_SPACE}
        if self.options.subword == "word" or not size:
            for name in names:
                shutil.copyfile(tokenized / name, out / "segmented" / name)
            return {"type": "word" if self.options.subword == "word" else None}
        codes = self._codes(out)
        merges = self._learn_or_copy_bpe(codes)
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

    def _learn_or_copy_bpe(self, codes: Sequence[Path]) -> list[int]:
        """Write the BPE of both sides; returns the number of merges of each."""
        size, train = self.options.bpe_size, [self.dest / "tokenized" / f"train.{lang}" for lang in self.languages]
        if self.like:
            for source, code in zip(self._codes(self.like), codes, strict=True):
                shutil.copyfile(source, code)
            return [count_lines(code) - 1 for code in codes]  # below the version
        if self.options.joint_bpe:
            merges = learn_bpe(train, size, codes[0], "joint")
            shutil.copyfile(codes[0], codes[1])
            return [merges, merges]
        sides = zip(train, codes, self.languages, strict=True)
        return [learn_bpe([text], size, code, language) for text, code, language in sides]

    def _dual(self, out: Path) -> dict[str, Any]:
        source, target = self.languages
        languages = ["--source-lang", source, "--target-lang", target]
        texts = {split: self.dest / "segmented" / split for split in self.splits}
        arguments = self._dictionary_options()
        if self.like or SYNTHETIC in self.parts:
            if self.like:
                made = [shutil.copyfile(file, out / file.name) for file in self._dictionaries(self.like)]
            else:
                # The dictionaries are those of the real text alone, so that models trained on it fit.
                train = ["--trainpref", self._relative(texts["train"]), "--dict-only"]
                self._binarize(out / "dual", [*languages, *arguments, *train], f"{texts['train']}.{source}")
                made = [file.rename(out / file.name) for file in self._dictionaries(out)]
            arguments = ["--srcdict", self._relative(made[0]), "--tgtdict", self._relative(made[1])]
        if SYNTHETIC in self.parts:
            texts["train"] = self._with_synthetic(out)
        for split, prefix in texts.items():
            arguments += [f"--{split}pref", self._relative(prefix)]
        self._binarize(out / "dual", [*languages, *arguments], f"{texts['train']}.{source}")
        for split, prefix in texts.items():
            for language in self.languages:
                check_size(out / "dual" / f"{split}.{source}-{target}.{language}", Path(f"{prefix}.{language}"))
        lengths = lengths_record(limits_of(out / "dual", source, target))
        write_json(out / "dual" / LENGTHS, lengths)
        known = {lang: symbols(file) for lang, file in zip(self.languages, self._dictionaries(out), strict=True)}
        unknown = {
            f"{split}.{language}": unknown_share(self.dest / "segmented" / f"{split}.{language}", known[language])
            for split in set(self.parts) - ({"train"} if self.like is None else set())
            for language in self.languages
        }
        return {
            "joined": self.options.joined_dictionary,
            "symbols": {language: len(of_language) for language, of_language in known.items()},
            "unknown_share": dict(sorted(unknown.items())),
            "lengths": lengths,
        }

    def _dictionary_options(self) -> list[str]:
        from fairseq.data import Dictionary

        threshold = str(self.options.vocab_threshold)
        arguments = ["--thresholdsrc", threshold, "--thresholdtgt", threshold]
        if self.options.vocab_size:
            size = str(self.options.vocab_size + Dictionary().nspecial)  # fairseq counts its own symbols too
            arguments += ["--nwordssrc", size, "--nwordstgt", size]
        return [*arguments, "--joined-dictionary"] if self.options.joined_dictionary else arguments

    def _codes(self, folder: Path) -> list[Path]:
        """The files of BPE, one a side; none where the tokens are not those of BPE."""
        bpe = self.options.subword == "bpe" and self.options.bpe_size
        return [folder / "bpe" / f"codes.{language}" for language in self.languages] if bpe else []

    def _dictionaries(self, folder: Path) -> list[Path]:
        """The dictionary files, one a side."""
        return [folder / "dual" / f"dict.{language}.txt" for language in self.languages]

    def _with_synthetic(self, out: Path) -> Path:
        """Write the training text, real pairs --upsample times and synthetic ones; returns its prefix."""
        for language in self.languages:
            real, synthetic = (self.dest / "segmented" / f"{part}.{language}" for part in ("train", SYNTHETIC))
            concatenate([real] * self.options.upsample + [synthetic], out / f"train.{language}")
        return out / "train"

    def _lm(self, out: Path) -> dict[str, Any]:
        sentences: dict[str, Any] = {}
        for language in self.languages:
            texts = {split: self.dest / "segmented" / f"{split}.{language}" for split in self.splits}
            if language in self.mono:
                texts["train"] = out / f"train.{language}"
                more = (self.dest / "segmented" / f"{part}.{language}" for part in ("train", "mono"))
                concatenate([*more], texts["train"])
            arguments = ["--only-source", "--srcdict", f"dual/dict.{language}.txt"]
            for split, text in texts.items():
                arguments += [f"--{split}pref", self._relative(text)]
            (out / "lm" / language).mkdir()
            self._binarize(out / "lm" / language, arguments, texts["train"])
            sentences[language] = {
                split: check_size(out / "lm" / language / split, text) for split, text in texts.items()
            }
            say(f"lm: {language}: {sentences[language]['train']:,} training sentences")
        return sentences

    def _binarize(self, output: Path, arguments: Sequence[str], largest: str | Path) -> None:
        fairseq_preprocess(self.dest, output, arguments, Path(largest), self.options.workers)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.dest))

    def _record(self, path: Path, surveys: dict[str, dict[str, list[Survey]]], results: dict[str, Any]) -> None:
        import fairseq

        options = self.options
        write_json(
            path,
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
                "inputs": {
                    f"{split}.{language}": [file._asdict() for file in files]
                    for split, sides in surveys.items()
                    for language, files in sides.items()
                },
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

    def _report(self, results: dict[str, Any]) -> None:
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
        limits = (
            f"{direction} {limit['max_len_a']:.2f} * n + {limit['max_len_b']} (mean {limit['ratio']:.2f} * n)"
            for direction, limit in dictionary["lengths"].items()
        )
        say(f"longest translation of n tokens: {', '.join(limits)}")
        say(f"ready: {self.dest / 'dual'} for the pair, {self.dest / 'lm'}/<language> for the language models")


def main(arguments: Sequence[str] | None = None) -> None:
    """Preprocess as the command line says.

    Raises:
        UserError: an option or an input is wrong.
    """
    Preprocessing(parse(arguments)).run()
