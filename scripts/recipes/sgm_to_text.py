"""Convert a WMT test set from SGM, source and reference, to text with a segment a line.

Usage: python sgm_to_text.py SOURCE.sgm REFERENCE.sgm SOURCE.txt REFERENCE.txt
"""

import html
import re
import sys
from pathlib import Path

# WMT's files are not well-formed XML, so no XML parser reads them all.
TAG = re.compile(r"<doc\b([^>]*)>|<seg\b([^>]*)>(.*?)</seg\s*>", re.IGNORECASE | re.DOTALL)
ID = re.compile(r"""\b(?:doc)?id\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def read_segments(path: Path) -> list[tuple[tuple[str, str], str]]:
    """The segments of an SGM file in order: ((document, number), text in one line, entities resolved).

    Raises:
        SystemExit: the file is missing, not UTF-8, or its segments are not all closed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        sys.exit(f"sgm_to_text: error: {path}: {error.strerror}")
    except UnicodeDecodeError:
        sys.exit(f"sgm_to_text: error: {path}: not UTF-8; fetch the archive again")
    segments, document = [], ""
    for match in TAG.finditer(text):
        attributes = match[1] if match[3] is None else match[2]
        name = found[1] if (found := ID.search(attributes)) else ""
        if match[3] is None:
            document = name
        else:
            segments.append(((document, name), " ".join(html.unescape(match[3]).split())))
    expected = len(re.findall(r"<seg\b", text, re.IGNORECASE))
    if not segments or len(segments) != expected:
        sys.exit(f"sgm_to_text: error: {path}: {len(segments)} whole segments of {expected}; fetch the archive again")
    return segments


def main(source_sgm: str, reference_sgm: str, source_text: str, reference_text: str) -> None:
    """Write both sides, after checking that they are the same segments of the same documents."""
    source, reference = read_segments(Path(source_sgm)), read_segments(Path(reference_sgm))
    if len(source) != len(reference):
        sys.exit(
            f"sgm_to_text: error: {source_sgm} has {len(source)} segments and {reference_sgm} has {len(reference)}; "
            "take both from one archive"
        )
    for (name, _), (other, _) in zip(source, reference, strict=True):
        if name != other:
            sys.exit(
                f"sgm_to_text: error: {source_sgm}: document {name[0]}, segment {name[1]} stands where {reference_sgm} "
                f"has document {other[0]}, segment {other[1]}; take both from one archive"
            )
    for path, segments in ((source_text, source), (reference_text, reference)):
        Path(path).write_text("".join(text + "\n" for _, text in segments), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
