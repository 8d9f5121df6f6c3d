"""Three of fairseq's six extensions are built (scripts/setup.sh puts this folder on the PYTHONPATH of that build).

The other three are compiled against torch, which takes six sevenths of the time; no model of this project loads them.
"""

import setuptools

NEEDED = {"fairseq.libbleu", "fairseq.data.data_utils_fast", "fairseq.data.token_block_utils_fast"}
_setup = setuptools.setup


def setup(**options):
    """As setuptools's.

    Raises:
        SystemExit: fairseq has no such extensions.
    """
    if options.get("name") == "fairseq-fixed":
        options["ext_modules"] = [module for module in options["ext_modules"] if module.name in NEEDED]
        if len(options["ext_modules"]) != len(NEEDED):
            raise SystemExit(f"{__file__}: this fairseq does not build {', '.join(sorted(NEEDED))}")
    return _setup(**options)


setuptools.setup = setup
