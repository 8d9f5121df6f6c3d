#!/usr/bin/env bash
# Makes .venv in the checkout: torch, fairseq, the rest, and dual_fairseq itself, all in the versions of constraints.txt.
# Run again, it goes on where it was; with nothing to do it ends at once. `make setup` is this script.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: scripts/setup.sh        (the same as `make setup`)

Makes the environment .venv in the checkout. Needs Python 3.11 or 3.12 with its venv module and headers, a C++ compiler
(fairseq is built from source, about two minutes), and pip's package index. Checks these before it downloads anything.

A torch >= 2.6 that the chosen Python can already import is kept and used from .venv; else the pinned one is installed.

Environment variables:
  PYTHON=python3.12        the Python to make .venv with; also the Python of a virtual environment or of conda,
                           whose torch is then used
  CXX=clang++              the C++ compiler (default: g++)
  TORCH_INDEX_URL=URL      take torch from this package index, for a build other than pip's default one: the CPU build,
                           without several GB of CUDA libraries, or another CUDA version. The URLs are those that
                           PyTorch's page "Get Started" shows after --index-url.
  PIP_...                  pip's own options, as usual
HELP
}

case "${1:-}" in
    "") ;;
    -h | --help) usage && exit 0 ;;
    *) echo "setup: error: unknown argument $1; see scripts/setup.sh --help" >&2 && exit 2 ;;
esac

# The physical path: it is what Python writes into the environment's scripts.
root="$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root"
venv="$root/.venv"
log="$venv/setup.log"
stamp="$venv/.setup-done"
min_torch="2.6"
safe_torch="2.10"

say() { printf '%s\n' "$*"; }
die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# One set-up of a checkout at a time. The lock is on this file, so that nothing is created for it.
if command -v flock >/dev/null; then
    exec 9<"$root/scripts/setup.sh"
    flock -n 9 || { say "setup: another set-up of this checkout is running, waiting for it" && flock 9; }
fi

wanted="$(cat constraints.txt pyproject.toml scripts/setup.sh | cksum) $venv"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "setup: .venv is ready, nothing to do"
    exit 0
fi

### Questions to a Python ##############################################################################################

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
supported() { [ "$1" = 3.11 ] || [ "$1" = 3.12 ]; }

# "VERSION SUITABLE" of the torch that a Python imports, where SUITABLE is yes or no; nothing where it has none.
# Its metadata must be there too, or pip would not see it and fetch another.
torch_of() {
    "$1" - "$min_torch" 2>/dev/null <<'PY' || true
import importlib.metadata
import re
import sys

import torch

version = importlib.metadata.version("torch")
at_least = tuple(map(int, sys.argv[1].split(".")))
print(version, "yes" if tuple(map(int, re.findall(r"\d+", version)[:2])) >= at_least else "no")
PY
}

# constraints.txt for an environment that keeps a torch of another version: that version is held fast, and what torch
# itself asks for is left to it.
constraints_beside() {
    "$1" - constraints.txt <<'PY'
import importlib.metadata
import re
import sys


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name):
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


free, queue = set(), ["torch", "torchaudio"]
while queue:
    name = canonical(queue.pop())
    if name in free or installed(name) is None:
        continue
    free.add(name)
    for requirement in installed(name).requires or []:
        if "extra ==" not in requirement:
            queue.append(re.match(r"[\w.-]+", requirement).group())
free -= {"numpy", "setuptools"}  # fairseq needs the pinned ones
print(f"torch=={importlib.metadata.version('torch')}")
for line in open(sys.argv[1], encoding="utf-8"):
    if canonical(line.partition("==")[0].strip()) not in free:
        print(line, end="")
PY
}

### 1. Is everything here that pip cannot bring? #######################################################################

fresh=yes
if [ -e "$venv/.making" ]; then
    : # an earlier run was stopped while it made .venv: once more
elif [ -n "$(version_of "$venv/bin/python")" ]; then
    fresh=no
elif [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    die ".venv is there but is no Python environment; move it away (mv .venv elsewhere) and run again"
fi

if [ "$fresh" = no ]; then
    python="$venv/bin/python"
    version="$(version_of "$python")"
    supported "$version" || die ".venv has Python $version, needed is 3.11 or 3.12; remove it (rm -rf .venv) and run again"
    if [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$version" ]; then
        die ".venv has Python $version, not that of PYTHON=$PYTHON; remove it (rm -rf .venv) to make it anew"
    fi
    [ -e "$venv/bin/pip" ] || die ".venv has no pip; remove it (rm -rf .venv) and run again"
    # pip's own script names the place it was made for.
    grep -qF "$venv/bin/" "$venv/bin/pip" ||
        die ".venv was moved or copied here from another place; remove it (rm -rf .venv) and run again"
else
    candidates=(python3 python3.11 python3.12 python)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    python="" found=""
    for candidate in "${candidates[@]}"; do
        version="$(version_of "$candidate")" || continue
        supported "$version" && python="$(command -v "$candidate")" && break
        found="$found, $candidate is $version"
    done
    if [ -z "$python" ]; then
        found="${found#, }"
        die "needs Python 3.11 or 3.12 (found: ${found:-none that runs}); install one, or name it: make setup PYTHON=/path/to/python3.12"
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python has no venv module; install it (Debian, Ubuntu: apt install python$version-venv)"
fi

"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    die "$python has no Python.h; install its headers (Debian, Ubuntu: apt install python$version-dev)"

compiler="${CXX:-g++}"
export CXX="$compiler" # the one that is checked here is the one that builds
# CXX may carry options (CXX="ccache g++").
# shellcheck disable=SC2086
if ! command -v ${compiler%% *} >/dev/null; then
    die "no C++ compiler: $compiler is not there; install g++ (Debian, Ubuntu: apt install g++) or name one: make setup CXX=clang++"
elif ! printf '#include <vector>\n' | $compiler -x c++ -fsyntax-only - 2>/dev/null; then
    die "the C++ compiler $compiler does not compile a line with <vector>; install g++ (Debian, Ubuntu: apt install g++) or name another: make setup CXX=clang++"
fi

say "[1/4] Python $version and the C++ compiler $compiler are here"

### 2. .venv and torch #################################################################################################

# A torch that is there already is looked for before .venv is made: it decides how .venv is made.
if [ "$fresh" = yes ]; then
    read -r torch suitable <<<"$(torch_of "$python")" || true
    options=(--prompt dual-fairseq)
    parent_packages=""
    if [ "${suitable:-no}" = yes ]; then
        say "      $python has torch $torch: keeping it"
        # A virtual environment's packages do not come with --system-site-packages, which shows those of the Python
        # that it was made from: they are named in a .pth file.
        in_venv='import sys; sys.exit(sys.prefix == sys.base_prefix)'
        if "$python" -c "$in_venv"; then
            parent_packages="$("$python" -c 'import site; print(*site.getsitepackages(), sep="\n")')"
            grep -qsi '^include-system-site-packages *= *true' \
                "$("$python" -c 'import sys; print(sys.prefix)')/pyvenv.cfg" && options+=(--system-site-packages)
        else
            options+=(--system-site-packages)
        fi
    elif [ -n "${torch:-}" ]; then
        say "      $python has torch $torch, older than $min_torch: installing one into .venv"
    fi
    rm -rf "$venv"
    mkdir "$venv"
    : >"$venv/.making"
    "$python" -m venv "${options[@]}" "$venv" >"$log" 2>&1 ||
        die "$python -m venv failed: $(tail -n 1 "$log") (more in .venv/setup.log)"
    if [ -n "$parent_packages" ]; then
        "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$venv/.purelib"
        printf '%s\n' "$parent_packages" >"$(cat "$venv/.purelib")/parent-environment.pth"
        rm "$venv/.purelib"
    fi
    rm "$venv/.making"
fi
python="$venv/bin/python"
started=$SECONDS
printf '\n### %s: setup.sh\n' "$(date)" >>"$log"

# Options of the user's shell that would send packages elsewhere.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# fairseq builds CUDA kernels where it finds this: nothing here uses them, and they fail to build where the CUDA
# toolkit is not of torch's version.
unset CUDA_HOME

# pip_install STAGE ARGS...: pip's words go to the log; where it fails, their end is shown.
pip_install() {
    local stage="$1"
    shift
    printf '\n### pip install %s\n' "$*" >>"$log"
    if ! "$python" -m pip install --progress-bar off "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "$stage failed: pip's last lines are above, all of them in .venv/setup.log; run again to go on from here"
    fi
}

# A package whose copying was broken off passes for installed with pip, truncated libraries and all. pip writes INSTALLER
# and RECORD last: where one is missing, the entry goes, and pip installs the package again.
for entry in "$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"/*.dist-info; do
    [ -e "$entry/INSTALLER" ] && [ -e "$entry/RECORD" ] || rm -rf "$entry"
done

constraints="$root/constraints.txt"
read -r torch suitable <<<"$(torch_of "$python")" || true
pinned="$(sed -n 's/^torch==//p' constraints.txt)"
if [ "${suitable:-no}" = yes ]; then
    say "[2/4] torch $torch is here; installing what fairseq is built with"
    if [ "$(printf '%s\n' "$safe_torch" "${torch%%+*}" | sort -V | head -n 1)" != "$safe_torch" ]; then
        say "      note: a crafted checkpoint can corrupt memory in torch before $safe_torch (CVE-2026-24747)," \
            "so load none from a stranger, or upgrade torch"
    fi
    if [ "${torch%%+*}" != "$pinned" ]; then
        constraints="$venv/constraints.txt"
        constraints_beside "$python" >"$constraints"
    fi
else
    say "[2/4] installing torch $pinned: 200 MB for a CPU build, several GB with CUDA (progress: .venv/setup.log)"
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        # Alone: such an index holds few other packages, and not in the versions that are pinned.
        pip_install "installing torch" --no-deps --index-url "$TORCH_INDEX_URL" "torch==$pinned"
    fi
fi
pip_install "installing torch" --constraint "$constraints" torch "numpy<2" cython wheel "setuptools<81"

### 3. fairseq #########################################################################################################

# Without build isolation: pip would fetch a second torch to build it with.
say "[3/4] building and installing fairseq, about two minutes"
pip_install "building fairseq" --constraint "$constraints" --no-build-isolation fairseq-fixed

### 4. The rest, and dual_fairseq itself ###############################################################################

say "[4/4] installing the rest, and dual_fairseq from this checkout"
pip_install "installing the rest" --constraint "$constraints" --no-build-isolation --editable ".[dev]"

"$python" -c 'import fairseq, numpy, sys, torch; sys.exit(int(numpy.__version__.split(".")[0]) >= 2)' >>"$log" 2>&1 ||
    die "the environment does not work: fairseq or torch cannot be imported, or numpy is not below 2 (why: .venv/setup.log); remove it (rm -rf .venv) and run again"

printf '%s\n' "$wanted" >"$stamp"
say "setup: .venv is ready ($((SECONDS - started)) s)"
