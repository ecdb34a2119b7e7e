#!/usr/bin/env bash
# First step of `make demo`, `make test` and `make lint`: everything the project needs, once.
#
#   tools/setup.sh [demo|test|dev]      PYTHON=... names the interpreter (3.11 to 3.13)
#
# 1. What the machine lacks (compiler, libjpeg-turbo and Python headers) is installed where that is
#    one package-manager command and one is root; else that line is printed and the exit code is 2.
#    libdeflate's and libwebp's headers come the same way, but nothing fails for want of them.
# 2. .venv is made; a torch that the environment already has, within pyproject's range, is used.
# 3. The project is installed into it, editable, through constraints.txt, when pyproject.toml,
#    constraints.txt, native/** or the set of Python files changed; otherwise nothing is done.
# Steps go to stderr, one line each; what pip and apt said lies in .venv/setup.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

want="${1:-test}"
root="$PWD"
log="$(mktemp "${TMPDIR:-/tmp}/setup.XXXXXX")"
trap 'rm -f "$log"' EXIT
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONHOME

say() { printf '%s\n' "setup: $*" >&2; }
die() {
  say "$*"
  exit 2
}

# step LABEL COMMAND...: one line with the elapsed time; the end of the log where it fails.
step() {
  local label="$1" begin=$SECONDS status=0
  shift
  printf 'setup: %s ... ' "$label" >&2
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  if ((status)); then
    printf 'failed after %d s\n' $((SECONDS - begin)) >&2
    tail -n 60 "$log" >&2
    if [ -d .venv ]; then cp "$log" .venv/setup.log && say "all of it: $root/.venv/setup.log"; fi
    exit 2
  fi
  printf '%d s\n' $((SECONDS - begin)) >&2
}

# ------------------------------------------------------------------------------- nothing to do?

fingerprint() {
  local include
  {
    printf '%s\n' "$root" "$(uname -m)"
    for include in /usr/include /usr/local/include ${CONDA_PREFIX:+"$CONDA_PREFIX/include"}; do
      ls "$include/libdeflate.h" "$include/webp/demux.h" 2>/dev/null || true # built with or without
    done
    find native -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -- pyproject.toml \
      constraints.txt tools/setup.sh
    find coordl dsanalyzer -name '*.py' | LC_ALL=C sort
  } | sha256sum | cut -d' ' -f1
}

# installed WANT: the stamp says that this tree is installed with at least what WANT needs.
installed() {
  local print have
  [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || return 1
  [ -f .venv/setup.stamp ] && read -r print have <.venv/setup.stamp || return 1
  [ "$print" = "$now" ] && case " $have " in *" $1 "*) true ;; *) false ;; esac
}

# base_of PYTHON: the interpreter itself, also where PYTHON belongs to a virtual environment.
base_of() { "$1" -c 'import os, sys; print(os.path.realpath(sys._base_executable))' 2>/dev/null; }

# An interpreter that was asked for by name and is not the one .venv has: .venv is made anew.
other_python() {
  [ -n "${PYTHON:-}" ] && [ -f .venv/setup.python ] &&
    [ "$(base_of "$PYTHON")" != "$(cat .venv/setup.python)" ]
}

if command -v flock >/dev/null; then # two at once: the second waits and finds the work done
  exec 9<pyproject.toml
  flock -n 9 || { say "another setup of this tree is running; waiting for it" && flock 9; }
fi
now="$(fingerprint)"
if installed "$want" && ! other_python; then exit 0; fi

# ---------------------------------------------------------------------------- the interpreter

known="Python 3.11 to 3.13"
fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# torch_of PYTHON: version and site folder of its torch, if it imports and pyproject allows it.
torch_of() {
  "$1" - 2>/dev/null <<'PY'
import re, sys, tomllib
from pathlib import Path

wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
text = next(d for d in wanted if re.match(r"torch\b", d))
import torch

def number(version):
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])

have = number(torch.__version__)
low, high = (number(re.search(sign + r"([\d.]+)", text)[1]) for sign in (">=", "<"))
if low <= have < high:
    print(torch.__version__, Path(torch.__file__).parent.parent)
PY
}

find_python() {
  local candidate found=""
  python="" torch="" torch_site=""
  for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3 python python3.13 python3.12 python3.11}; do
    command -v "$candidate" >/dev/null && fits "$candidate" || continue
    # .venv's own interpreter may come first on PATH; what it was made from is meant then.
    case "$(command -v "$candidate")" in "$root"/.venv/*) candidate="$(base_of "$candidate")" ;; esac
    found="${found:-$candidate}"
    read -r torch torch_site <<<"$(torch_of "$candidate")" || true
    if [ -n "$torch" ]; then found="$candidate" && break; fi
  done
  python="$found" version=""
  [ -z "$found" ] || version="$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
}

# -------------------------------------------------------------------- what the machine must have

compiles() { # compiles FLAGS: the program on stdin, as C++20
  local compiler
  for compiler in ${CXX:+"$CXX"} c++ g++ clang++; do
    command -v "$compiler" >/dev/null || continue
    "$compiler" -std=c++20 -fsyntax-only "$@" -x c++ - 2>/dev/null && return 0
    return 1
  done
  return 1
}
conda_include=()
if [ -n "${CONDA_PREFIX:-}" ]; then
  conda_include=(-I"$CONDA_PREFIX/include")
  export CMAKE_PREFIX_PATH="$CONDA_PREFIX${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
fi
has_compiler() { echo 'int main() { return 0; }' | compiles; }
has_jpeg() {
  printf '#include <cstdio>\n#include <jpeglib.h>\n#ifndef LIBJPEG_TURBO_VERSION\n#error\n#endif\n' |
    compiles "${conda_include[@]}"
}
has_png() { echo '#include <libdeflate.h>' | compiles "${conda_include[@]}"; }
has_webp() { echo '#include <webp/demux.h>' | compiles "${conda_include[@]}"; }
has_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null; }
has_headers() {
  "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

# lacking: the words for what is missing, one a line.
lacking() {
  if [ -z "$python" ]; then echo python; else
    has_venv || echo venv
    has_headers || echo headers
  fi
  if has_compiler; then has_jpeg || echo jpeg; else
    echo compiler
    # Without a compiler the header is looked for by name.
    find /usr/include /usr/local/include -name jpeglib.h 2>/dev/null | grep -q . || echo jpeg
  fi
}

# lacking_formats: the same for what the project also builds without.
lacking_formats() {
  if has_compiler; then
    has_png || echo png
    has_webp || echo webp
  else
    find /usr/include /usr/local/include -name libdeflate.h 2>/dev/null | grep -q . || echo png
    find /usr/include /usr/local/include -path '*/webp/demux.h' 2>/dev/null | grep -q . || echo webp
  fi
}

fact() { # fact WORD: what it is
  case "$1" in
    compiler) echo "a C++20 compiler" ;;
    jpeg) echo "libjpeg-turbo's headers" ;;
    png) echo "libdeflate's headers (for PNG)" ;;
    webp) echo "libwebp's headers (for WebP)" ;;
    venv) echo "Python's venv module" ;;
    headers) echo "Python's headers" ;;
    python) echo "$known" ;;
  esac
}

# known_to_apt: the newest Python it has that fits; its default one where it has no lists yet.
known_to_apt() {
  local number
  for number in 3.13 3.12 3.11; do
    apt-cache show "python$number-venv" >/dev/null 2>&1 || continue
    echo "python$number-venv python$number-dev" && return
  done
  echo python3-venv python3-dev
}

# package WORD: its name for this machine's package manager.
package() {
  case "$manager:$1" in
    apt-get:compiler | apk:compiler) echo g++ ;;
    apt-get:jpeg) echo libjpeg-dev ;;
    apt-get:png | apk:png) echo libdeflate-dev ;;
    apt-get:webp | apk:webp) echo libwebp-dev ;;
    apt-get:venv) echo "python$version-venv" ;;
    apt-get:headers) echo "python$version-dev" ;;
    apt-get:python) known_to_apt ;;
    dnf:compiler) echo gcc-c++ ;;
    dnf:jpeg) echo libjpeg-turbo-devel ;;
    dnf:png) echo libdeflate-devel ;;
    dnf:webp) echo libwebp-devel ;;
    dnf:venv) echo "python$version" ;;
    dnf:headers) echo "python$version-devel" ;;
    dnf:python) echo python3.11 python3.11-devel ;;
    pacman:compiler) echo gcc ;;
    pacman:jpeg) echo libjpeg-turbo ;;
    pacman:png) echo libdeflate ;;
    pacman:webp) echo libwebp ;;
    apk:jpeg) echo libjpeg-turbo-dev ;;
    apk:headers) echo python3-dev ;;
    *) die "$known with venv and headers is needed and $manager has no package of that name" \
      "known here. Install it and name it: make PYTHON=/path/to/python3.12 ..." ;;
  esac
}

# install_lacking WORDS [optional]: where it may be left out, the line is printed and setup goes on.
install_lacking() {
  local missing="$1" optional="${2:-}" packages=() word names command facts
  manager=""
  for word in apt-get dnf pacman apk; do
    if command -v "$word" >/dev/null; then manager="$word" && break; fi
  done
  facts=""
  for word in $missing; do facts="$facts${facts:+, }$(fact "$word")"; done
  if [ -z "$manager" ] && [ -n "$optional" ]; then return 0; fi
  [ -n "$manager" ] || die "missing: $facts. No package manager known here; install them, then again."
  for word in $missing; do
    names="$(package "$word")" || exit 2
    packages+=($names)
  done
  case "$manager" in
    apt-get) command="apt-get install -y --no-install-recommends ${packages[*]}" ;;
    dnf) command="dnf install -y ${packages[*]}" ;;
    pacman) command="pacman -S --needed --noconfirm ${packages[*]}" ;;
    apk) command="apk add ${packages[*]}" ;;
  esac
  if [ "$manager" = apt-get ] && ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    command="apt-get update && $command"
  fi
  if [ "$(id -u)" != 0 ]; then
    if [ -n "$optional" ]; then
      say "going on without $facts: Pillow decodes such files. This line would change that:"
    else
      say "missing: $facts. Install with this line, then run the same command again:"
    fi
    if command -v sudo >/dev/null; then command="sudo ${command//&& /&& sudo }"; fi
    printf '%s\n' "$command" >&2
    if [ -n "$optional" ]; then return 0; fi
    exit 2
  fi
  export DEBIAN_FRONTEND=noninteractive
  if [ "$manager" = apt-get ]; then # lists may be older than the mirror: refreshed once on failure
    command="${command//apt-get /apt-get -o DPkg::Lock::Timeout=300 }"
    command="$command || { apt-get update && ${command##*&& }; }"
  fi
  # In a shell of its own: a step that fails ends it.
  if [ -n "$optional" ]; then
    (step "installing ${packages[*]}" bash -c "$command") ||
      say "going on without $facts: Pillow decodes such files"
  else
    step "installing ${packages[*]}" bash -c "$command"
  fi
}

# ------------------------------------------------------------------------------------- .venv

make_venv() {
  if [ -e .venv ] && [ ! -f .venv/setup.python ] && [ -n "$(ls -A .venv 2>/dev/null)" ]; then
    if [ -f .venv/bin/activate ] && fits .venv/bin/python; then return 0; fi # the user's own
    [ -f .venv/bin/activate ] &&
      die "$root/.venv exists and is not $known. Move it away, then run the same again."
  fi
  if [ -f .venv/setup.python ] && fits .venv/bin/python && ! other_python &&
    .venv/bin/python -m pip --version >/dev/null 2>&1; then return 0; fi
  rm -rf .venv
  local options=()
  [ -z "$torch" ] || options=(--system-site-packages)
  step "making .venv with $("$python" -V)" "$python" -m venv ${options[@]+"${options[@]}"} .venv
  if [ -n "$torch" ]; then
    # From within a virtual environment --system-site-packages shows only what lies below it.
    .venv/bin/python -c 'import torch' 2>/dev/null || printf '%s\n' "$torch_site" \
      >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
    say "using torch $torch of $torch_site"
  fi
  base_of "$python" >.venv/setup.python
}

# The torch that .venv sees stays: the constraint on it becomes its own version.
write_constraints() {
  local torch_now
  torch_now="$(torch_of .venv/bin/python | cut -d' ' -f1)" || true
  sed "s/^torch==.*/torch==${torch_now:-$(sed -n 's/^torch==//p' constraints.txt)}/" \
    constraints.txt >.venv/setup.constraints
}

pip_install() { .venv/bin/python -m pip install -c .venv/setup.constraints "$@"; }

has_cmake() { # 3.20 or later, on PATH
  command -v cmake >/dev/null &&
    cmake --version | awk 'NR==1 { split($3, v, "."); exit !(v[1] > 3 || v[1] == 3 && v[2] >= 20) }'
}

install_project() {
  local tools=(scikit-build-core nanobind)
  has_cmake || tools+=("cmake>=3.20")
  command -v ninja >/dev/null || tools+=(ninja)
  step "installing build tools" pip_install "${tools[@]}"
  if [ -z "$(torch_of .venv/bin/python)" ]; then
    step "installing torch and what it needs (large)" pip_install \
      "torch==$(sed -n 's/^torch==//p' .venv/setup.constraints)" numpy
  fi
  step "building and installing the project" pip_install --no-build-isolation -e ".[$1]"
}

# Some tests compare with torchvision where it is there. A convenience: its absence is no failure.
install_torchvision() {
  .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torchvision"))' ||
    pip_install --no-deps --only-binary=:all: torchvision==0.28.0 ||
    echo "torchvision is not to be had; the tests that want it are skipped"
}

find_python
if [ -n "${PYTHON:-}" ] && [ -z "$python" ]; then die "PYTHON=$PYTHON is not $known here."; fi
missing="$(lacking)" formats="$(lacking_formats)"
if [ -n "$missing" ]; then
  install_lacking "$missing $formats"
  find_python
  missing="$(lacking)"
  [ -z "$missing" ] || die "still missing after the installation:" $missing
elif [ -n "$formats" ]; then
  install_lacking "$formats" optional
fi
now="$(fingerprint)"
make_venv
write_constraints
if [ "$want" = dev ]; then
  install_project dev
elif ! installed demo; then
  install_project test
fi
case "$want" in
  demo) have="demo" ;;
  *)
    step "installing torchvision for comparison" install_torchvision
    have="demo test"
    ;;
esac
if [ "$want" = dev ]; then have="demo test dev"; fi
cp "$log" .venv/setup.log
printf '%s %s\n' "$now" "$have" >.venv/setup.stamp
