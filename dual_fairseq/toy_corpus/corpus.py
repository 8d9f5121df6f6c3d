"""``dual-fairseq toy-corpus``: text of the grammar, and its exact probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..common.arguments import Parser
from ..common.errors import UserError
from ..common.files import write_json, write_text
from ..common.options import add_seed, whole_number
from .grammar import ToyGrammar
from .index import LANGUAGES
from .limits import entropies

DESCRIPTION = """\
Write the embedded corpus, pairs of German and English sentences, and its exact probabilities.

The command writes {train,valid,test,mono}.{de,en} to OUT, and then truth.json: the sums of the log-probabilities of
each split and the entropies of the grammar, in nats. The sentences of mono.de and mono.en are not translations of each
other."""


def write_corpus(
    out: Path,
    sizes: dict[str, int],
    mono: int,
    seed: int,
    grammar: ToyGrammar | None = None,
    entropy_samples: int = 2000,
) -> dict:
    """Writes the corpus and ``truth.json`` (last, so that its presence means that all files are complete).

    Args:
        out: folder, made if it is missing.
        sizes: pairs per split (``train``, ``valid`` and ``test``), drawn separately.
        mono: sentences of ``mono.de`` and of ``mono.en``.

    Returns:
        The content of ``truth.json``; log-probabilities and entropies in nats.

    Raises:
        UserError: one of the files exists with other text.
        CannotWrite: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    grammar = grammar or ToyGrammar()
    drawn = {split: grammar.sample(size, _seed(seed, offset)) for offset, (split, size) in enumerate(sizes.items())}
    texts = {f"{split}.{lang}": (pairs, side) for split, pairs in drawn.items() for side, lang in enumerate(LANGUAGES)}
    for side, lang in enumerate(LANGUAGES):
        texts[f"mono.{lang}"] = grammar.sample(mono, _seed(seed, len(sizes) + side)), side
    contents = {out / name: "".join(pair[side] + "\n" for pair in pairs) for name, (pairs, side) in texts.items()}
    for file, content in contents.items():
        if file.is_file() and file.read_bytes() != content.encode():
            raise UserError(f"{file}: holds other text; choose another folder, or delete this one")
    (out / "truth.json").unlink(missing_ok=True)
    for file, content in contents.items():
        write_text(file, content)
    splits = {split: _truth(grammar, pairs) for split, pairs in drawn.items()}
    if train := set(drawn.get("train", ())):
        for split in splits.keys() - {"train"}:
            splits[split]["share_in_train"] = sum(pair in train for pair in drawn[split]) / sizes[split]
    truth = {
        "unit": "nats",
        "seed": seed,
        "splits": splits,
        "mono": {"sentences": mono},
        "entropies": entropies(grammar, entropy_samples),
    }
    write_json(out / "truth.json", truth)
    return truth


def _seed(seed: int, offset: int) -> int:
    # Far apart, so that neighbouring seeds of the user share no split.
    return seed * 1_000 + offset


def _truth(grammar: ToyGrammar, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    joint = math.fsum(grammar.log_prob_joint(de, en) for de, en in pairs)
    source = math.fsum(grammar.log_prob(de, "de") for de, _ in pairs)
    target = math.fsum(grammar.log_prob(en, "en") for _, en in pairs)
    return {
        "sentences": len(pairs),
        "log_p_joint": joint,
        "log_p_de": source,
        "log_p_en": target,
        "log_p_en_given_de": math.fsum(grammar.log_prob_conditional(en, de, "de") for de, en in pairs),
        "log_p_de_given_en": math.fsum(grammar.log_prob_conditional(de, en, "en") for de, en in pairs),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the description above."""
    parser = Parser("toy-corpus", DESCRIPTION)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    for split, name, default in (("train", "training", 3000), ("valid", "validation", 500), ("test", "test", 500)):
        parser.add_argument(
            f"--{split}", type=whole_number(), default=default, metavar="N", help=f"{name} pairs (default %(default)s)"
        )
    parser.add_argument(
        "--mono", type=whole_number(0), default=20_000, metavar="N",
        help="monolingual sentences per language (default %(default)s)",
    )  # fmt: skip
    add_seed(parser)
    options = parser.parse_args(arguments)
    sizes = {"train": options.train, "valid": options.valid, "test": options.test}
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file; name a folder to write the corpus to")
    truth = write_corpus(options.out, sizes, options.mono, options.seed)
    limits = truth["entropies"]
    print(
        f"wrote {', '.join(f'{size} {name}' for name, size in sizes.items())} pairs and {options.mono} monolingual "
        f"sentences per language to {options.out}; H(en|de) = {limits['en_given_de']:.2f}, "
        f"H(de|en) = {limits['de_given_en']:.2f} nats a sentence"
    )
