#!/usr/bin/env bash
# Make a pair's training data: dual-fairseq preprocess of this checkout; --help explains it.
exec "$(dirname -- "${BASH_SOURCE[0]}")/dual-fairseq.sh" preprocess "$@"
