#!/usr/bin/env bash
# Makes .venv in the checkout: torch, fairseq, the rest, and dual_fairseq itself, all in the versions of constraints.txt.
# If it was interrupted, run it again: it continues. If nothing is to do, it ends at once. `make setup` runs it.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: scripts/setup.sh        (the same as `make setup`)

Makes the environment .venv in the checkout. Needs Python 3.11 to 3.14 with its venv module and headers, a C++ compiler
(fairseq is built from source), and pip's package index. Checks these before it downloads anything.

A torch >= 2.6 that the chosen Python can already import is kept and used from .venv; else the pinned one is installed.

Environment variables:
  PYTHON=python3.13        the Python to make .venv with; also that of a virtual environment or of conda
  CXX=clang++              the C++ compiler (default: g++)
  TORCH_INDEX_URL=URL      take torch from this package index, for a build other than pip's default one: the CPU build,
                           without several GB of CUDA libraries, or another CUDA version. The URLs are those that
                           PyTorch's page "Get Started" shows after --index-url.
  PIP_...                  pip's own options, as usual

The last stage uses uv, if it is installed, because it is faster than pip.
HELP
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}
case "${1:-}" in
    "") ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown argument $1; see scripts/setup.sh --help" ;;
esac

CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="$PWD/.venv" log="$PWD/.venv/setup.log" stamp="$PWD/.venv/.setup-done"
wanted="$(cat constraints.txt pyproject.toml scripts/setup.sh scripts/build_fairseq/sitecustomize.py | cksum) $venv"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "setup: .venv is ready, nothing to do"
    exit 0
fi

# --- what pip cannot bring

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The version of the torch that a Python can import, if it is new enough; nothing otherwise.
torch_of() {
    "$1" -c 'import re, torch, importlib.metadata
version = importlib.metadata.version("torch")
print(version if tuple(map(int, re.findall(r"\d+", version)[:2])) >= (2, 6) else "")' 2>/dev/null || true
}

packages() { "$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }

new=no
[ -e "$venv/bin/python" ] || new=yes
if [ "$new" = no ]; then
    python="$venv/bin/python" version="$(version_of "$venv/bin/python")"
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$version" ] ||
        die ".venv has Python $version, not that of PYTHON=$PYTHON; remove it (rm -rf .venv) to make it anew"
    "$python" -m pip --version >/dev/null 2>&1 || die ".venv has no pip; remove it (rm -rf .venv) and run again"
else
    [ ! -e "$venv" ] || die ".venv is there but is no Python environment; move it away and run again"
    python="" others=""
    candidates=(python3 python3.1{1..4} python)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        version="$(version_of "$candidate")" || continue
        case $version in 3.1[1-4]) python="$(command -v "$candidate")" && break ;; esac
        others="$others, $candidate is $version"
    done
    others="${others#, }"
    [ -n "$python" ] || die "needs Python 3.11 to 3.14 (found: ${others:-none that runs}); install one, or name it:" \
        "make setup PYTHON=/path/to/python3.13"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python has no venv module; install it (Debian, Ubuntu: apt install python$version-venv)"
fi
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    die "$python has no Python.h; install its headers (Debian, Ubuntu: apt install python$version-dev)"
export CXX="${CXX:-g++}" # may carry options, as in "ccache g++"
advice="install g++ (Debian, Ubuntu: apt install g++) or name a compiler: make setup CXX=clang++"
command -v "${CXX%% *}" >/dev/null || die "no C++ compiler: $CXX is not there; $advice"
# shellcheck disable=SC2086
printf '#include <vector>\n' | $CXX -x c++ -fsyntax-only - 2>/dev/null ||
    die "the C++ compiler $CXX does not compile a line with <vector>; $advice"
say "[1/4] Python $version and the C++ compiler $CXX are here"

# --- .venv and torch

if [ "$new" = yes ]; then
    parent="$python" python="$venv/bin/python" torch="$(torch_of "$parent")"
    output="$("$parent" -m venv --prompt dual-fairseq "$venv" 2>&1)" || {
        rm -rf "$venv"
        die "$parent -m venv failed: ${output##*$'\n'}"
    }
    if [ -n "$torch" ]; then
        say "      $parent has torch $torch: keeping it"
        # Python looks for packages in .venv first, then in the parent environment, of whatever kind that is.
        "$parent" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
            >"$(packages)/parent-environment.pth"
    fi
fi

# Options of the user's shell that would send packages elsewhere, or have fairseq build CUDA kernels that nobody uses.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME CUDA_HOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# pip_install STAGE ARGS...: pip's words go to the log; where it fails, their end is shown.
pip_install() {
    local stage="$1"
    shift
    printf '\n### %s: pip install %s\n' "$(date)" "$*" >>"$log"
    "$python" -m pip install --progress-bar off "$@" >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        die "$stage failed: pip's last lines are above, all of them in .venv/setup.log; run again to go on from here"
    }
}

# uv_install ARGS...: as pip, and faster. uv neither finds a parent environment's torch nor reads what index pip is to use.
uv_install() {
    command -v uv >/dev/null && [ ! -e "$(packages)/parent-environment.pth" ] &&
        [[ "$("$python" -m pip config list)" != *index* ]] || return
    printf '\n### %s: uv pip install %s\n' "$(date)" "$*" >>"$log"
    uv pip install --python "$python" "$@" >>"$log" 2>&1 </dev/null || {
        say "      uv failed (why: .venv/setup.log); pip takes over"
        return 1
    }
}

constraints="$PWD/constraints.txt" torch="$(torch_of "$python")" pinned="$(sed -n 's/^torch==//p' constraints.txt)"
if [ -z "$torch" ]; then
    say "[2/4] installing torch $pinned: 200 MB for a CPU build, several GB with CUDA (progress: .venv/setup.log)"
    # Without its dependencies: such an index holds few other packages, and not in the versions that are pinned.
    [ -z "${TORCH_INDEX_URL:-}" ] ||
        pip_install "installing torch" --no-deps --index-url "$TORCH_INDEX_URL" "torch==$pinned"
else
    say "[2/4] torch $torch is here; installing what fairseq is built with"
    if [ "${torch%%+*}" != "$pinned" ]; then # torch itself decides about the packages that it needs
        constraints="$venv/constraints.txt"
        printf 'torch==%s\n' "$torch" >"$constraints"
        grep -viE '^(torch|torchaudio|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|sympy|typing_extensions)==' \
            constraints.txt >>"$constraints"
    fi
fi
numpy="$("$python" -c 'import numpy; print(numpy.__version__)' 2>/dev/null || true)"
pip_install "installing torch" --constraint "$constraints" torch "numpy>=2" cython wheel "setuptools<81"

# --- fairseq and the rest, without build isolation: pip would fetch a second torch to build fairseq with

say "[3/4] building fairseq"
# What was built with numpy 1 fails with numpy 2. It may be in pip's cache, and in a .venv of an older checkout.
options=(--no-cache-dir --no-build-isolation --no-deps)
case $numpy in 1.*) options+=(--force-reinstall) ;; esac
PYTHONPATH="$PWD/scripts/build_fairseq" pip_install "building fairseq" --constraint "$constraints" "${options[@]}" \
    fairseq-fixed
say "[4/4] installing the rest, and dual_fairseq from this checkout"
rest=(--constraint "$constraints" --no-build-isolation --editable ".[dev]")
uv_install "${rest[@]}" || pip_install "installing the rest" "${rest[@]}"
"$python" -c 'import torch, fairseq.data.data_utils_fast' >>"$log" 2>&1 ||
    die "the environment does not work: fairseq or torch cannot be imported (why: .venv/setup.log); remove it" \
        "(rm -rf .venv) and run again"
printf '%s\n' "$wanted" >"$stamp"
say "setup: .venv is ready ($SECONDS s)"
