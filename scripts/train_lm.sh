#!/usr/bin/env bash
# Train a language model: dual-fairseq train-lm of this checkout; --help explains it.
exec "$(dirname -- "${BASH_SOURCE[0]}")/dual-fairseq.sh" train-lm "$@"
