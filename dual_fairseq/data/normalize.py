"""Brings raw text into one form, for all code that reads text for a pair's models."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections import Counter
from html.entities import html5

from ..common.languages import language_of

# Unicode's line separators. A corpus has only one kind of line end, the newline, so these become spaces.
_SEPARATORS = re.compile("[\n\x0b\x0c\r\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SPACES = re.compile("[ \t]+")
# A character that is not a space and does more than control the layout.
_VISIBLE = re.compile("[^\\s\u00ad\u200b-\u200f\u2060\ufeff]")
_ENTITY = re.compile("&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Characters that only control the layout, and Unicode's noncharacters (the joiners U+200C and U+200D are spelling).
_INVISIBLE = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufffe\uffff]")
# Turkish, Azerbaijani, Crimean Tatar and Gagauz, whose lower-case I is ı
_DOTLESS = {"tr", "tur", "az", "aze", "azj", "crh", "gag"}


class BadLine(Exception):
    """A line that cannot be used; the message is a key of REASONS."""


def decode(raw: bytes, repairs: Counter[str], normalized: bool = True) -> str:
    """One line as text: no line end, no byte order mark, single spaces, see :func:`normalize`.

    Args:
        raw: the line.
        repairs: counts what was repaired.
        normalized: False: without :func:`normalize`, like earlier versions.

    Raises:
        BadLine: the line cannot be used.
    """
    if raw.endswith(b"\r"):
        repairs["windows_line_ends"] += 1
        raw = raw[:-1]
    if raw.startswith(codecs.BOM_UTF8):  # joined files have it in the middle
        repairs["byte_order_marks"] += 1
        raw = raw[len(codecs.BOM_UTF8) :]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadLine("bad_utf8") from None
    text, replaced = _SEPARATORS.subn(" ", text)
    repairs["line_separators"] += replaced
    if _CONTROL.search(text):
        raise BadLine("control")
    text = repair(text, repairs, normalized)
    if not text:
        raise BadLine("empty")
    return text


def repair(text: str, repairs: Counter[str], normalized: bool = True) -> str:
    """One line of any text in the form that :func:`decode` gives.

    Control characters become spaces, and a text without a visible character becomes "".
    """
    text = without_controls(text.removeprefix("\ufeff"))
    if normalized:
        text = normalize(text, repairs)
    return _SPACES.sub(" ", text).strip() if _VISIBLE.search(text) else ""


def normalize(text: str, repairs: Counter[str]) -> str:
    """Resolve HTML entities once, drop soft hyphens and invisible characters, compose characters (Unicode's NFC).

    Args:
        text: a line.
        repairs: counts what was changed: entities, characters, and lines that were not composed.
    """
    if text.isascii() and "&" not in text:
        return text

    def resolved(entity: re.Match[str]) -> str:
        numeric, name = entity[0].startswith("&#"), entity[0][1:]
        character = html.unescape(entity[0]) if numeric else html5.get(name, entity[0])
        repairs["entities"] += character != entity[0]
        return without_controls(character)

    text = _ENTITY.sub(resolved, text)
    for name, pattern in (("soft_hyphens", "\u00ad"), ("invisible_characters", _INVISIBLE)):
        text, dropped = re.subn(pattern, "", text)
        repairs[name] += dropped
    if not unicodedata.is_normalized("NFC", text):
        repairs["lines_not_in_NFC"] += 1
        text = unicodedata.normalize("NFC", text)
    return text


def lower(text: str, language: str, normalized: bool = True) -> str:
    """Lower case, composed; ``İ`` becomes ``i``, not ``i`` and a combining dot, and ``I`` becomes ``ı`` in Turkish.

    Args:
        normalized: False: only Unicode's general rules, like earlier versions.
    """
    if normalized:
        text = text.replace("İ", "i")
        if language_of(language) in _DOTLESS:
            text = text.replace("I", "ı")
        # Some letters are composed only in lower case: Ϊ́ is two characters, ΐ is one.
        return unicodedata.normalize("NFC", text.lower())
    return text.lower()


def described(repairs: Counter[str]) -> str:
    """The counts for people; "" if there was nothing to repair."""
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted((+repairs).items()))


def without_controls(text: str) -> str:
    """A line with spaces instead of control characters and line separators."""
    return _CONTROL.sub(" ", _SEPARATORS.sub(" ", text))
