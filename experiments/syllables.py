"""Cut Burmese or Rakhine text into syllables, one pair of files for each split.

    python experiments/syllables.py FOLDER OUT

FOLDER has the files train, valid and test with the suffixes .my and .rk, plain or compressed (.gz). Spaces are removed.
A syllable begins at each consonant that is not stacked below another one and does not end a syllable (it has no asat).
"""

from __future__ import annotations

import re
from pathlib import Path

from dual_fairseq.common.arguments import Parser
from dual_fairseq.common.errors import UserError
from dual_fairseq.common.files import whole_file
from dual_fairseq.data.lines import open_text

# U+1039 stacks a consonant, U+103A is asat; independent vowels, digits and marks are syllables of their own
_BEGINNING = re.compile(r"((?<!\u1039)[\u1000-\u1021](?![\u1039\u103a])|[a-zA-Z0-9ဣဤဥဦဧဩဪဿ၌၍၏၀-၉၊။!-/:-@\[-`{-~])")


def syllables(line: str) -> str:
    """A line with a space between its syllables."""
    return " ".join(_BEGINNING.sub(r" \1", "".join(line.split())).split())


def main() -> None:
    """The command line; see the first lines of this file.

    Raises:
        UserError: a file is missing.
    """
    parser = Parser("experiments/syllables.py", str(__doc__))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder with the text")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        for language in ("my", "rk"):
            names = [options.folder / f"{split}.{language}{suffix}" for suffix in ("", ".gz")]
            file = next(filter(Path.is_file, names), None)
            if file is None:
                raise UserError(f"{names[0]}: there is no such file, and no {names[1].name}")
            with open_text(file) as text, whole_file(options.out / f"{split}.{language}") as out:
                out.writelines(f"{syllables(line.decode())}\n".encode() for line in text)


if __name__ == "__main__":
    main()
