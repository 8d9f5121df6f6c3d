#!/usr/bin/env bash
# Train a pair: dual-fairseq train of this checkout; --help explains it.
exec "$(dirname -- "${BASH_SOURCE[0]}")/dual-fairseq.sh" train "$@"
