#!/usr/bin/env bash
# Prepares a checkout for building: compiler and headers from the system, LibTorch and CMake in .venv,
# third-party sources in .deps. Nothing outside the checkout changes, except Debian packages that are missing.
# Safe to interrupt and to run again; when nothing is left to do it ends at once.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/bootstrap.sh [--tests]

  --tests   also install what the Python tests need (transformers, sentencepiece, pytest)

environment:
  PYTHON    the interpreter to make .venv with (default: python3, python3.14, … python3.10)
  PIP_*     pip's own settings, such as PIP_INDEX_URL or PIP_FIND_LINKS, are honoured
EOF
}

readonly MIN_GXX=12
readonly TORCH_VERSION=2.13.0
readonly SENTENCEPIECE_VERSION=0.2.1

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
readonly SCRIPTS=$ROOT/scripts VENV=$ROOT/.venv DEPS=$ROOT/.deps
readonly LOG=$DEPS/bootstrap.log

ticker_pid='' log_started=0

die() {
  printf 'bootstrap.sh: %s\n' "$*" >&2
  exit 1
}

step() {
  printf '[%s/5] %s\n' "$1" "$2" >&2
}

# Runs a long command with its output in the log; a terminal sees the seconds pass, a failure shows the log's end.
# The command stays in the foreground, because a background one would not see Ctrl-C.
run_logged() {
  local rc=0
  if ((!log_started)); then
    : >"$LOG"  # Only now: the log of a run that did something outlives runs that had nothing to do.
    log_started=1
  fi
  if [[ -t 2 ]]; then
    (
      SECONDS=0
      while sleep 1; do printf '\r      %d s ' "$SECONDS" >&2; done
    ) &
    ticker_pid=$!
  fi
  printf '\n$ %s\n' "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1 </dev/null || rc=$?
  stop_ticker
  if ((rc != 0)); then
    tail -n 30 -- "$LOG" >&2
  fi
  return "$rc"
}

stop_ticker() {
  if [[ -n $ticker_pid ]]; then
    kill "$ticker_pid" 2>/dev/null || true
    wait "$ticker_pid" 2>/dev/null || true
    ticker_pid=
    printf '\r            \r' >&2
  fi
}

clean_up() {
  stop_ticker
  rm -rf -- "$DEPS"/.tmp.*
}

# --- [1/5] system -----------------------------------------------------------------------------------------------------

# Prints what a build of the extension would miss in this interpreter, nothing if it has all.
python_lacks() {
  "$1" - <<'EOF'
import importlib.util, os, sys, sysconfig
if sys.version_info < (3, 10):
    sys.exit("older than 3.10")
lacks = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    lacks.append("Python.h")
print(" ".join(lacks))
EOF
}

# Sets python (a complete interpreter), or incomplete and incomplete_lacks (the first that is new enough).
find_python() {
  local candidate lacks
  local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
  if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
  fi
  python='' incomplete='' incomplete_lacks=''
  for candidate in "${candidates[@]}"; do
    command -v -- "$candidate" >/dev/null || continue
    lacks=$(python_lacks "$candidate" 2>/dev/null) || continue
    if [[ -z $lacks ]]; then
      python=$candidate
      return
    fi
    if [[ -z $incomplete ]]; then
      incomplete=$candidate incomplete_lacks=$lacks
    fi
  done
}

# Names the Debian packages that complete an interpreter of Debian's, nothing for one from elsewhere.
python_packages() {
  local path version
  if [[ -z $incomplete ]]; then
    echo python3 python3-venv python3-dev
    return
  fi
  path=$("$incomplete" -c 'import os, sys; print(os.path.realpath(sys.executable))')
  version=$("$incomplete" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  if [[ $path == "$(readlink -f /usr/bin/python3 2>/dev/null)" ]]; then
    echo python3-venv python3-dev
  elif [[ $path == /usr/bin/* ]]; then
    echo "$version-venv" "$version-dev"
  fi
}

gxx_version() {
  "$1" -dumpversion 2>/dev/null | cut -d. -f1
}

# Prints the compiler to build with: CXX, else g++ if it is new enough, else the newest g++-N.
find_gxx() {
  local candidate version
  local candidates=(g++)
  for version in {20..12}; do
    candidates+=("g++-$version")
  done
  if [[ -n ${CXX:-} ]]; then
    echo "$CXX"
    return
  fi
  for candidate in "${candidates[@]}"; do
    version=$(gxx_version "$candidate") || continue
    if [[ $version =~ ^[0-9]+$ ]] && ((version >= MIN_GXX)); then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# Prints the Debian packages whose files are neither on the system nor already under .deps.
missing_packages() {
  if ! find_gxx >/dev/null; then
    if command -v g++ >/dev/null; then
      echo "g++-$MIN_GXX"  # There is a g++, but it is too old.
    else
      echo g++
    fi
  fi
  if [[ ! -e $VENV/bin/python ]]; then
    find_python
    if [[ -z $python ]]; then
      python_packages
    fi
  fi
  [[ -e $DEPS/include/nlohmann/json.hpp || -e /usr/include/nlohmann/json.hpp ]] || echo nlohmann-json3-dev
  [[ -e $DEPS/include/CLI/CLI.hpp || -e /usr/include/CLI/CLI.hpp ]] || echo libcli11-dev
  have_library jpeglib.h jpeg || echo libjpeg62-turbo-dev
  have_library png.h png16 || echo libpng-dev
  if ((with_tests)) && ! have_googletest; then
    echo googletest
  fi
}

# Prints the Debian packages without which a build still works: slower, without the C++ tests, or without the checks
# that Clang makes.
missing_optional_packages() {
  command -v ccache >/dev/null || echo ccache
  if ((!with_tests)); then
    have_googletest || echo googletest
    return
  fi
  command -v clang-format-19 >/dev/null || echo clang-format-19
  command -v clang++-19 >/dev/null || printf '%s\n' clang-19 libclang-rt-19-dev
}

# have_library HEADER NAME: asks the compiler, as Debian keeps libraries in a folder of the processor's name.
have_library() {
  [[ -e $DEPS/include/$1 && -e $DEPS/lib/lib$2.so ]] && return
  [[ -e /usr/include/$1 && -n $(library_path "$2") ]]
}

# Prints where the linker finds libNAME.so, nothing where it does not.
library_path() {
  local path gxx
  gxx=$(find_gxx) || return 0
  path=$("$gxx" -print-file-name="lib$1.so")
  if [[ $path == /* ]]; then
    echo "$(realpath -- "${path%/*}")/lib$1.so"
  fi
}

have_googletest() {
  [[ -e $DEPS/googletest/CMakeLists.txt || -e /usr/src/googletest/CMakeLists.txt ]]
}

# apt_install PACKAGE…: fails where there is no apt or no right to use it.
apt_install() {
  local as_root=()
  command -v apt-get >/dev/null || return 1
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  run_logged "${as_root[@]}" apt-get update || return 1
  run_logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

set_up_system() {
  local missing=() optional=() all=() refused=() package
  mapfile -t missing < <(missing_packages | tr ' ' '\n')
  if [[ ! -e $DEPS/.optional-tried ]]; then
    mapfile -t optional < <(missing_optional_packages)
  fi
  all=("${missing[@]}" "${optional[@]}")
  if ((${#all[@]} == 0)); then
    step 1 'System packages: all there'
    return
  fi
  step 1 "System packages: installing ${all[*]} …"
  if ((${#optional[@]} != 0)) && ! apt_install "${all[@]}"; then
    touch -- "$DEPS/.optional-tried"  # Once is enough: each try asks the package servers.
    for package in "${optional[@]}"; do apt_install "$package" || refused+=("$package"); done
    step 1 "System packages: going on without ${refused[*]} (ccache makes rebuilds fast, the others are for tests)"
  fi
  if ((${#missing[@]} == 0)); then
    return
  fi
  mapfile -t missing < <(missing_packages | tr ' ' '\n')
  if ((${#missing[@]} != 0)) && ! apt_install "${missing[@]}"; then
    if command -v apt-get >/dev/null; then
      die "cannot install Debian packages from here. Please run this, then bootstrap.sh again:
  sudo apt-get install -y --no-install-recommends ${all[*]}"
    fi
    die "this system has no apt-get. Please install what these Debian packages hold, then run bootstrap.sh again:
  ${all[*]}"
  fi
  mapfile -t missing < <(missing_packages | tr ' ' '\n')
  if ((${#missing[@]} != 0)); then
    die "still missing after the installation: ${missing[*]}. ${LOG#"$ROOT"/} tells what was done."
  fi
}

# --- [2/5] .venv ------------------------------------------------------------------------------------------------------

# A key changes with the listed files and with the checkout's place: a .venv holds absolute paths and cannot be moved.
stamp_key() {
  local file
  {
    echo "$ROOT"
    for file in "$@"; do cat -- "$file"; done
  } | sha256sum | cut -d' ' -f1
}

stamped() {
  [[ -e $1 && $(<"$1") == "$2" ]]
}

venv_works() {
  [[ ! -e $VENV/.installing ]] && "$VENV/bin/python" -c 'import pip' 2>/dev/null
}

set_up_venv() {
  local place
  if venv_works && stamped "$VENV/.stamp-place" "$(stamp_key)"; then
    step 2 "Python: $("$VENV/bin/python" -V 2>&1 | cut -d' ' -f2) in .venv, up to date"
    return
  fi
  find_python
  if [[ -z $python && -n $incomplete ]]; then
    die "$incomplete lacks $incomplete_lacks. Install them, or name another interpreter: PYTHON=/path/to/python3.12 scripts/bootstrap.sh"
  elif [[ -z $python ]]; then
    die "found no Python from 3.10 on${PYTHON:+ as PYTHON=$PYTHON}. Please run: sudo apt-get install python3 python3-venv python3-dev"
  fi
  step 2 "Python: making .venv with $("$python" -V 2>&1) …"
  rm -rf -- "$VENV"
  run_logged "$python" -m venv "$VENV" || die "$python cannot make .venv, see above."
  place=$(stamp_key)
  echo "$place" >"$VENV/.stamp-place"
}

# CMake takes the first c++ on PATH, and .venv/bin comes first there during a build.
link_compiler() {
  local gxx
  if [[ -n ${CXX:-} ]]; then
    return
  fi
  gxx=$(find_gxx) || die "found no g++ from $MIN_GXX on."
  if [[ $gxx != g++ ]]; then
    ln -sf -- "$(command -v "$gxx")" "$VENV/bin/c++"
    ln -sf -- "$(command -v "$gxx")" "$VENV/bin/g++"
  fi
}

# --- [3/5] and [4/5] packages into .venv ------------------------------------------------------------------------------

# pip_install STAMP KEY FILE: the marker tells the next run that an interrupted pip may have left half a package.
pip_install() {
  local rc=0
  touch -- "$VENV/.installing"
  run_logged "$VENV/bin/python" -m pip install --disable-pip-version-check -r "$3" || rc=$?
  rm -f -- "$VENV/.installing"
  if ((rc == 0)); then
    echo "$2" >"$1"
  fi
  return "$rc"
}

torch_version() {
  "$VENV/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null
}

check_torch() {
  local found
  found=$(torch_version) || found=none
  [[ ${found%%+*} == "$TORCH_VERSION" ]] ||
    die "wanted torch $TORCH_VERSION in .venv, found $found. Remove .venv and run bootstrap.sh again."
}

# PyPI's torch for Linux brings CUDA; a person without an NVIDIA GPU may not want that, but only they can say so.
hint_at_cpu_build() {
  local settings
  settings=$("$VENV/bin/python" -m pip config list)
  if [[ ! -e /proc/driver/nvidia/version && ! $settings =~ index-url|find-links ]]; then
    echo "      This machine has no NVIDIA driver, yet PyPI's torch brings CUDA (some 5 GB on disk). For the CPU-only build
      press Ctrl-C and set PIP_EXTRA_INDEX_URL to PyTorch's CPU index; its \"Get Started\" page has the address." >&2
  fi
}

set_up_libtorch() {
  local key
  key=$(stamp_key "$SCRIPTS/requirements.txt")
  if stamped "$VENV/.stamp-base" "$key"; then
    step 3 "LibTorch: torch $TORCH_VERSION and CMake in .venv, up to date"
    return
  fi
  step 3 "LibTorch: installing torch $TORCH_VERSION and CMake (200 MB to download, with CUDA 3 GB) …"
  hint_at_cpu_build
  pip_install "$VENV/.stamp-base" "$key" "$SCRIPTS/requirements.txt" ||
    die "pip could not install scripts/requirements.txt, see above. What helps:
  - no torch==$TORCH_VERSION found: it needs Python 3.10 to 3.14 (this is $("$VENV/bin/python" -V 2>&1)); choose one with PYTHON=…
  - no network: put the wheels into a folder and set PIP_FIND_LINKS to it
  - another package index (a mirror, or PyTorch's CPU-only one): set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL"
  check_torch
}

set_up_tests() {
  local key
  key=$(stamp_key "$SCRIPTS/requirements.txt" "$SCRIPTS/requirements-test.txt")
  if stamped "$VENV/.stamp-tests" "$key"; then
    step 4 'Test packages: up to date'
  elif ((with_tests)); then
    step 4 'Test packages: installing transformers, sentencepiece, pytest …'
    pip_install "$VENV/.stamp-tests" "$key" "$SCRIPTS/requirements-test.txt" ||
      die 'pip could not install scripts/requirements-test.txt, see above.'
    check_torch
  else
    step 4 'Test packages: skipped (--tests installs them)'
  fi
}

# --- [5/5] .deps ------------------------------------------------------------------------------------------------------

# publish DIR TARGET: TARGET appears complete or not at all.
publish() {
  mkdir -p -- "$(dirname -- "$2")"
  rm -rf -- "$2"
  mv -T -- "$1" "$2"
}

fetch_sentencepiece() {
  local tmp archive tree
  tmp=$(mktemp -d "$DEPS/.tmp.XXXXXX")
  # pip has no way to take an archive without reading its metadata; that runs setup.py, which builds nothing.
  run_logged "$VENV/bin/python" -m pip download --disable-pip-version-check --no-binary :all: --no-deps \
    --require-hashes -r "$SCRIPTS/requirements-sources.txt" -d "$tmp" ||
    die "pip could not fetch the SentencePiece $SENTENCEPIECE_VERSION source archive, see above.
Without a network, set PIP_FIND_LINKS to a folder that holds it, or copy .deps from another checkout."
  archive=$tmp/sentencepiece-$SENTENCEPIECE_VERSION.tar.gz
  tar -xzf "$archive" -C "$tmp" --no-same-owner
  tree=$tmp/sentencepiece-$SENTENCEPIECE_VERSION/sentencepiece
  [[ -e $tree/CMakeLists.txt && -e $tree/src/sentencepiece_processor.h ]] ||
    die "the SentencePiece archive does not hold the C++ tree where expected (sentencepiece/CMakeLists.txt)."
  echo "$1" >"$tree/.stamp"
  publish "$tree" "$DEPS/sentencepiece"
  rm -rf -- "$tmp"
}

# copy_tree FROM TO WITNESS: so that a copied checkout builds on a machine without these packages.
copy_tree() {
  local tmp
  if [[ -e $2/$3 || ! -e $1/$3 ]]; then
    return
  fi
  tmp=$(mktemp -d "$DEPS/.tmp.XXXXXX")
  cp -RL -- "$1" "$tmp/tree"
  publish "$tmp/tree" "$2"
  rm -rf -- "$tmp"
}

# copy_library NAME HEADER…: likewise. The library gets the name that programs ask for, and the one that the linker does.
copy_library() {
  local name=$1 path headers header soname
  path=$(library_path "$name")
  if [[ -e $DEPS/lib/lib$name.so || -z $path ]]; then
    return
  fi
  mkdir -p -- "$DEPS/include" "$DEPS/lib"
  headers=${path%/*}
  headers=${headers/#\/usr\/lib//usr/include}
  for header in "${@:2}"; do
    cp -L -- "/usr/include/$header" "$DEPS/include/" 2>/dev/null || cp -L -- "$headers/$header" "$DEPS/include/"
  done
  soname=$(readelf -d "$path" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
  cp -L -- "$path" "$DEPS/lib/$soname"
  ln -sf -- "$soname" "$DEPS/lib/lib$name.so"
}

set_up_sources() {
  local key
  key=$(sha256sum <"$SCRIPTS/requirements-sources.txt" | cut -d' ' -f1)
  copy_tree /usr/include/nlohmann "$DEPS/include/nlohmann" json.hpp
  copy_tree /usr/include/CLI "$DEPS/include/CLI" CLI.hpp
  copy_library jpeg jpeglib.h jconfig.h jmorecfg.h jerror.h
  copy_library png16 png.h pngconf.h pnglibconf.h
  copy_tree /usr/src/googletest "$DEPS/googletest" CMakeLists.txt
  if stamped "$DEPS/sentencepiece/.stamp" "$key"; then
    step 5 "Sources: SentencePiece $SENTENCEPIECE_VERSION and headers in .deps, up to date"
    return
  fi
  step 5 "Sources: fetching SentencePiece $SENTENCEPIECE_VERSION …"
  fetch_sentencepiece "$key"
}

# ----------------------------------------------------------------------------------------------------------------------

with_tests=0
for arg in "$@"; do
  case $arg in
    --tests) with_tests=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown argument '$arg'" ;;
  esac
done

[[ $OSTYPE == linux* ]] || die "wants Linux, this is $OSTYPE."
mkdir -p -- "$DEPS"
# Two runs at once would spoil each other's .venv. The lock goes with the process, so a killed run leaves none.
if command -v flock >/dev/null; then
  exec 9>"$DEPS/.lock"
  flock -n 9 || { echo 'bootstrap.sh: another run is in progress, waiting for it …' >&2; flock 9; }
fi
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf -- "$DEPS"/.tmp.*

# pip and ccache keep caches under HOME; where there is none, pip must not invent one at the file system's root.
if [[ -z ${HOME:-} ]]; then
  export PIP_NO_CACHE_DIR=1
fi

set_up_system
set_up_venv
link_compiler
set_up_libtorch
set_up_tests
set_up_sources
