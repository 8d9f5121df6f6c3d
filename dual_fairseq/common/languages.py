"""Language codes: files and keys use the code; its language decides rules and scores."""

from __future__ import annotations

import re

# ISO 639-3 (and the older 639-2/B) → ISO 639-1, for languages with rules in sacremoses or sacreBLEU. A standard
# variety (Standard Latvian, lvs) counts as its language.
_TWO_LETTERS = {
    three: two
    for two, threes in {
        "as": "asm", "bn": "ben", "ca": "cat", "cs": "ces cze", "de": "deu ger", "el": "ell gre", "en": "eng",
        "es": "spa", "et": "est ekk", "fi": "fin", "fr": "fra fre", "ga": "gle", "gu": "guj", "hi": "hin", "hu": "hun",
        "is": "isl ice", "it": "ita", "ja": "jpn", "kn": "kan", "ko": "kor", "lt": "lit", "lv": "lav lvs", "ml": "mal",
        "mr": "mar", "nl": "nld dut", "or": "ori ory", "pa": "pan", "pl": "pol", "pt": "por", "ro": "ron rum",
        "ru": "rus", "sk": "slk slo", "sl": "slv", "sv": "swe", "ta": "tam", "te": "tel", "zh": "zho chi cmn",
    }.items()
    for three in threes.split()
}  # fmt: skip

# Mandarin and other languages in Chinese characters
CHINESE = frozenset("zh yue wuu lzh nan hak gan hsn cdo".split())


def language_of(code: str) -> str:
    """The language of a code, for rules and scores: ``en`` for ``eng_Latn``, ``en_US``, ``en-US`` and ``eng``.

    A language that is not in the table stays unchanged, except that it becomes lower case.
    """
    language = re.split("[_-]", code, maxsplit=1)[0].lower()
    return _TWO_LETTERS.get(language, language)
