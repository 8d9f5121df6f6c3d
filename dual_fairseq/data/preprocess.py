"""``dual-fairseq preprocess``: turns raw parallel text into the folders that training reads.

There are four stages. The folders of a stage appear only when they are complete:

- text: clean and tokenise (``raw/``, ``tokenized/``)
- bpe: split all text into subwords (byte pair encoding or SentencePiece, learned on the training text), into
  characters, or not at all (``bpe/``, ``segmented/``); undo this and measure the differences
- dual: dictionaries of the training text and the binarized pair (``dual/``)
- lm: monolingual text, binarized with the same dictionaries (``lm/<language>/``)

With ``--like``, BPE and dictionaries come from another such folder, so its models fit.

A finished stage leaves a note with its options and inputs in ``.stages/``.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..common.dictionaries import check_dictionary_file, counted_symbols
from ..common.errors import UserError
from ..common.files import sha256, write_json
from ..common.folders import LENGTHS, RECORD, WRITING
from ..common.progress import say
from ..common.records import read_record
from ..common.segmentation import ANNOTATIONS, by_language, shared
from ..plugin.lengths import LIMITS, limits_of
from ..plugin.lengths import record as lengths_record
from . import choices, likeness, repeated
from .binarize import check_size, concatenate, dictionary_options, fairseq_preprocess, symbols, unknown_share
from .clean import Rules, clean_corpus
from .labels import check_labels, check_tags, refuse_lost
from .lines import Survey, survey, survey_pair
from .options import BY_LANGUAGE, OUTPUTS, find_side, parse
from .resumable import Stage, locked, replace, run_stages, workplace
from .segment import Segmentation, codes_files
from .subword import text_lines
from .tokenizer import rules_in_words
from .writing import writing_of

SYNTHETIC = "synthetic"
TRAINING = ("train", SYNTHETIC)  # text that may lose lines; scores are computed on the other text
STRANGE = 0.1  # of a text's BPE tokens; text of the same kind has about 0.01 unknown ones


class Preprocessing:
    """All stages for one DEST.

    Args:
        options: from :func:`~dual_fairseq.data.options.parse`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.dest = Path(options.dest)
        self.languages: tuple[str, str] = (options.source_lang, options.target_lang)
        self.text_languages = [language for language in self.languages if options.subword[language] not in ANNOTATIONS]
        self.rules = Rules(
            options.tokenizer,
            options.normalize_punctuation,
            options.lowercase,
            options.max_length,
            options.max_ratio,
            options.normalized,
        )
        self.held_out_rules = dataclasses.replace(self.rules, max_ratio=0.0, keep_long=True)
        # The pieces of each split, each with one file per side.
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
        for file in [*codes_files(self.like, options).values(), *self._dictionaries(self.like)] if self.like else []:
            if not file.is_file():
                raise UserError(f"--like {self.like}: {file} is missing; run the command that made the folder again")
        for file in self._dictionaries(self.like) if self.like else []:
            check_dictionary_file(file)
        extra = dict(zip(self.languages, (options.extra_mono_source, options.extra_mono_target), strict=True))
        self.mono = {language: [[Path(file)] for file in files] for language, files in extra.items() if files}

    def run(self) -> None:
        """Run the stages that are not finished.

        Raises:
            UserError: an input is missing or bad, or DEST was made from other input or options, or is in use.
        """
        surveys, dest = self._survey(), self.dest
        check_labels(self.options, self.parts, self._dictionaries(self.like) if self.like else ())
        check_tags(self.options, self.parts)
        choices.check_ratio(self.options, self.parts.get("train", []))
        self.overlap = choices.choose(self.options, dest, self.parts.get("train", []), surveys.get("train", {}))
        stages, overwrite = self._stages(surveys), self.options.overwrite
        with locked(dest, OUTPUTS):
            self.dest = workplace(dest, stages, overwrite, RECORD)
            results = run_stages(self.dest, stages, overwrite)
            self._record(self.dest / RECORD, surveys, results)
            if self.dest != dest:
                replace(self.dest, dest, stages, RECORD)
                self.dest = dest
        self._report(results)

    def _stages(self, surveys: dict[str, dict[str, list[Survey]]]) -> list[Stage]:
        options = self.options
        text = {
            "source-lang": self.languages[0],
            "target-lang": self.languages[1],
            "tokenizer": shared(options.tokenizer),
            "lowercase": options.lowercase,
            "max-length": options.max_length,
            "max-ratio": options.max_ratio,
            "on-bad-line": options.on_bad_line,
            "text normalized": options.normalized,
            "normalize-punctuation": options.normalize_punctuation,
        }
        if options.drop_held_out:
            text["drop-held-out"] = True
        for split, sides in surveys.items():
            for language, files in sides.items():
                text[f"text of {split}.{language}"] = [file.sha256 for file in files]
        bpe = {"subword": shared(options.subword)}
        if "bpe" in options.subword.values():
            bpe |= {"bpe-size": options.bpe_size, "joint-bpe": options.joint_bpe}
        if "sentencepiece" in options.subword.values():
            bpe |= {"vocab-size": shared(options.vocab_size), "joint-bpe": options.joint_bpe}
        dual = {
            "joined-dictionary": options.joined_dictionary,
            "vocab-threshold": shared(options.vocab_threshold),
            "vocab-size": shared(options.vocab_size),
        }
        if SYNTHETIC in self.parts:
            dual["upsample"] = options.upsample
        if self.like:
            bpe["BPE codes of --like"] = [sha256(path) for path in codes_files(self.like, options).values()]
            dual["dictionaries of --like"] = [sha256(path) for path in self._dictionaries(self.like)]
        counted = {"kept": int}
        way = {"type": (None, str), "merges?": {str: int}}
        numbers = {"symbols": {str: int}, "unknown_share": {str: float}, "lengths": LIMITS}
        counts: dict[Any, Any] = {**dict.fromkeys(self.parts, counted), str: counted}
        if "train" in self.parts:
            counts["train"] = counted | {"writing": WRITING}
        ways = (dict.fromkeys(self.languages, way), way)
        return [
            Stage("text", ("raw", "tokenized"), text, self._text, counts),
            Stage("bpe", ("bpe", "segmented"), bpe, self._bpe, ways),
            Stage("dual", ("dual",), dual, self._dual, numbers),
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
                say(f"warning: {name}: lines were dropped, so scores cannot be compared with scores on the whole set")

        if by_moses := [language for language, name in options.tokenizer.items() if name == "moses"]:
            say(f"Moses rules: {rules_in_words(by_moses)}")
        held_out = [split for split in self.parts if split not in TRAINING]
        for split in held_out:
            clean(split, self.parts[split], self.languages, self.held_out_rules)
        files = [out / "tokenized" / f"{split}.{language}" for split in held_out for language in self.text_languages]
        dropped = repeated.long_lines(files) if options.drop_held_out else frozenset()
        for split in TRAINING:
            if split in self.parts:
                clean(split, self.parts[split], self.languages, self.rules, held_out=dropped)
        self._compare(out, held_out, counts)
        for language, parts in self.mono.items():
            # With --like, missing files come from its folder.
            texts = [self._made(out / "tokenized" / f"{split}.{language}") for split in ("valid", "test")]
            known = frozenset(line for file in texts if file.is_file() for line in text_lines(file))
            clean(f"mono.{language}", parts, [language], self.rules, held_out=known)
            texts = [self._made(out / "raw" / f"{name}.{language}") for name in ("train", "valid", "mono")]
            if all(file.is_file() for file in texts):
                likeness.report(language, *texts)
        return counts

    def _compare(self, out: Path, held_out: Sequence[str], counts: dict[str, Any]) -> None:
        """Count how the training text is written, and how much held-out text is in it."""
        if "train" in self.parts:
            counts["train"]["writing"] = {
                language: writing_of(out / "raw" / f"train.{language}", counts["train"]["kept"])
                for language in self.text_languages
            }
        fix = "--drop-held-out leaves them out of the training text" if "train" in self.parts else "take others"
        train = [self._made(out / "tokenized" / f"train.{language}") for language in self.text_languages]
        for split in held_out if all(file.is_file() for file in train) else ():
            text = [out / "tokenized" / f"{split}.{language}" for language in self.text_languages]
            counts[split]["in_training"] = repeated.report(split, train, text, fix)

    def _made(self, file: Path) -> Path:
        """A file that this command makes, or the file of --like if it does not make one."""
        other = self.like / file.parent.name / file.name if self.like else file
        return file if file.is_file() else other

    def _bpe(self, out: Path) -> dict[str, Any]:
        held_out = [split for split in self.parts if split not in TRAINING]
        return Segmentation(self.options, self.dest, out).do(held_out)

    def _dual(self, out: Path) -> dict[str, Any]:
        source, target = self.languages
        languages = ["--source-lang", source, "--target-lang", target]
        texts = {split: self.dest / "segmented" / split for split in self.splits}
        arguments = dictionary_options(self.options)
        if self.like or SYNTHETIC in self.parts:
            if self.like:
                made = [shutil.copyfile(file, out / file.name) for file in self._dictionaries(self.like)]
            else:
                # The dictionaries are made from the real text only, so that models trained on it fit.
                train = ["--trainpref", self._relative(texts["train"]), "--dict-only"]
                self._binarize(out / "dual", [*languages, *arguments, *train], Path(f"{texts['train']}.{source}"))
                made = [file.rename(out / file.name) for file in self._dictionaries(out)]
            arguments = ["--srcdict", self._relative(made[0]), "--tgtdict", self._relative(made[1])]
        if SYNTHETIC in self.parts:
            texts["train"] = self._with_synthetic(out)
        for split, prefix in texts.items():
            arguments += [f"--{split}pref", self._relative(prefix)]
        first = next((Path(f"{prefix}.{source}") for prefix in texts.values()), None)
        self._binarize(out / "dual", [*languages, *arguments], first)
        for split, prefix in texts.items():
            for language in self.languages:
                check_size(out / "dual" / f"{split}.{source}-{target}.{language}", Path(f"{prefix}.{language}"))
        lengths = lengths_record(limits_of(out / "dual", source, target))
        if self.like and not lengths and (file := self.like / "dual" / LENGTHS).is_file():
            lengths = read_record(file, LIMITS, f"make {self.like} again")
        write_json(out / "dual" / LENGTHS, lengths)
        files = dict(zip(self.languages, self._dictionaries(out), strict=True))
        known = {language: symbols(file) for language, file in files.items()}
        unknown = {
            f"{split}.{language}": unknown_share(self.dest / "segmented" / f"{split}.{language}", known[language])
            for split in set(self.parts) - ({"train"} if self.like is None else set())
            for language in self.languages
        }
        refuse_lost(unknown, self.options)
        return {
            "joined": self.options.joined_dictionary,
            "symbols": {language: len(counted_symbols(file)) for language, file in files.items()},
            "unknown_share": dict(sorted(unknown.items())),
            "lengths": lengths,
        }

    def _dictionaries(self, folder: Path) -> list[Path]:
        """The dictionary files, one per side."""
        return [folder / "dual" / f"dict.{language}.txt" for language in self.languages]

    def _with_synthetic(self, out: Path) -> Path:
        """Write the training text (real pairs --upsample times, then synthetic pairs) and return its prefix."""
        for language in self.languages:
            real, synthetic = (self.dest / "segmented" / f"{part}.{language}" for part in ("train", SYNTHETIC))
            concatenate([real] * self.options.upsample + [synthetic], out / f"train.{language}")
        return out / "train"

    def _lm(self, out: Path) -> dict[str, Any]:
        sentences: dict[str, Any] = {}
        for language in self.languages:
            texts = {split: self.dest / "segmented" / f"{split}.{language}" for split in self.splits}
            if language in self.mono:
                mono = self.dest / "segmented" / f"mono.{language}"
                pairs = [texts["train"]] if "train" in texts else []
                texts["train"] = out / f"train.{language}"
                concatenate([*pairs, mono], texts["train"])
            arguments = ["--only-source", "--srcdict", f"dual/dict.{language}.txt"]
            for split, text in texts.items():
                arguments += [f"--{split}pref", self._relative(text)]
            (out / "lm" / language).mkdir()
            self._binarize(out / "lm" / language, arguments, next(iter(texts.values()), None))
            sentences[language] = {
                split: check_size(out / "lm" / language / split, text) for split, text in texts.items()
            }
            if "train" in texts:
                say(f"lm: {language}: {sentences[language]['train']:,} training sentences")
        return sentences

    def _binarize(self, output: Path, arguments: Sequence[str], largest: Path | None) -> None:
        fairseq_preprocess(self.dest, output, arguments, largest, self.options.workers)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.dest))

    def _record(self, path: Path, surveys: dict[str, dict[str, list[Survey]]], results: dict[str, Any]) -> None:
        import fairseq

        options = self.options
        extra = ["sentencepiece"] if "sentencepiece" in options.subword.values() else []
        write_json(
            path,
            {
                "source": self.languages[0],
                "target": self.languages[1],
                "normalized": options.normalized,
                "tokenizer": shared(options.tokenizer),
                "normalize_punctuation": options.normalize_punctuation,
                "lowercase": options.lowercase,
                "subword": shared(options.subword),
                "bpe": _without_round_trip(results["bpe"]),
                "round_trip": results["bpe"].get("round_trip", {}),
                "dictionary": results["dual"],
                "overlap": self.overlap,
                "writing": self._writing(results["text"]),
                "counts": results["text"],
                "lm_sentences": results["lm"],
                "inputs": {
                    f"{split}.{language}": [file._asdict() for file in files]
                    for split, sides in surveys.items()
                    for language, files in sides.items()
                },
                "options": {
                    key.replace("_", "-"): shared(value) if key in BY_LANGUAGE else value
                    for key, value in sorted(vars(options).items())
                    if key not in ("dest", "workers", "overwrite")
                },
                "versions": {
                    "python": platform.python_version(),
                    **{name: metadata.version(name) for name in ("sacremoses", "subword-nmt", *extra)},
                    "fairseq": fairseq.__version__,
                },
            },
        )

    def _writing(self, counts: dict[str, Any]) -> dict[str, dict[str, float]]:
        """How the training text of each language is written; with --like, the training text of its models."""
        if self.like is None:
            return counts["train"]["writing"]
        return read_record(self.like / RECORD, {"writing?": WRITING}, "give another --like").get("writing", {})

    def _report(self, results: dict[str, Any]) -> None:
        bpe = by_language(_without_round_trip(results["bpe"]), self.languages)
        merges = {lang: way.get("merges", {}).get(lang, 0) for lang, way in bpe.items() if way["type"] == "subword-nmt"}
        if merges:
            joint = f"{merges[self.languages[0]]:,} for both languages" if self.options.joint_bpe else ""
            say("BPE merges: " + (joint or ", ".join(f"{language} {number:,}" for language, number in merges.items())))
        dictionary = results["dual"]
        say("dictionaries: " + ", ".join(f"{language} {n:,} symbols" for language, n in dictionary["symbols"].items()))
        unknown = dictionary["unknown_share"]
        say(f"unknown symbols: {', '.join(f'{name} {share:.2%}' for name, share in unknown.items())}")
        if strange := [name for name in unknown if unknown[name] > STRANGE and name.split(".")[-1] in merges]:
            say(f"warning: {', '.join(strange)}: many unknown symbols; are the files of the two languages exchanged?")
        limits = (
            f"{direction} {limit['max_len_a']:.2f} * n + {limit['max_len_b']} (mean {limit['ratio']:.2f} * n)"
            for direction, limit in dictionary["lengths"].items()
        )
        say(f"longest translation of n source tokens: {', '.join(limits)}")
        say(f"ready: {self.dest / 'dual'} for the pair, {self.dest / 'lm'}/<language> for the language models")


def _without_round_trip(result: dict[str, Any]) -> dict[str, Any]:
    """The result of the segmentation stage without its round trips."""
    return {key: value for key, value in result.items() if key != "round_trip"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Preprocess as the command line says.

    Raises:
        UserError: an option or an input is wrong.
    """
    Preprocessing(parse(arguments)).run()
