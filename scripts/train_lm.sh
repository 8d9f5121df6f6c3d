#!/usr/bin/env bash
# Train a language model: dual-fairseq train-lm of this checkout; --help explains it.
set -euo pipefail
root=$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# The Python of the active environment where fairseq is installed there, else the checkout's own.
python=$(dirname -- "$(command -v fairseq-train || echo "$root/.venv/bin/fairseq-train")")/python
if [[ ! -x $python ]]; then
    echo "dual_fairseq: error: fairseq is not installed: run 'make setup' in $root, or activate its environment" >&2
    exit 1
fi
# This package and no other version of it, and no module of the current directory in place of a library's.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
exec "$python" -m dual_fairseq train-lm "$@"
