#!/usr/bin/env bash
# dual-fairseq of this checkout, by the Python of the active environment where fairseq is installed there, else of .venv.
set -euo pipefail
root=$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=$(dirname -- "$(command -v fairseq-train || echo "$root/.venv/bin/fairseq-train")")/python
if [[ ! -x $python ]]; then
    echo "dual_fairseq: error: fairseq is not installed: run 'make setup' in $root, or activate its environment" >&2
    exit 1
fi
# This package and no other version of it, and no module of the current directory in place of a library's.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
exec "$python" -m dual_fairseq "$@"
