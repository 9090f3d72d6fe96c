#!/usr/bin/env bash
# Prepares a checkout for building: compiler and headers from Debian, LibTorch and CMake in .venv, the sources of
# SentencePiece and xgrammar in .deps. Safe to interrupt and to run again; when nothing is left to do it ends at once.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: scripts/bootstrap.sh [--tests]

  --tests   also install what scripts/test.sh needs (transformers, pytest, googletest, Clang 19, ccache)

environment:
  CXX       the compiler (default: c++), g++ 12 or newer
  PYTHON    the Python to make .venv with (default: the first of python3, python3.14, ... python3.10)
  PIP_*     pip's own settings, such as PIP_INDEX_URL or PIP_FIND_LINKS, are honoured
USAGE
}

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
cd -- "$ROOT"
readonly LOG=.deps/bootstrap.log
readonly SENTENCEPIECE=sentencepiece-0.2.1 XGRAMMAR=xgrammar-0.2.9

note() { printf '[%s/4] %s\n' "$1" "$2" >&2; }

die() {
  printf 'bootstrap.sh: %s\n' "$*" >&2
  exit 1
}

# Runs a long command with its output in the log; a failure shows the log's end.
logged() {
  printf '\n$ %s\n' "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1 </dev/null || { tail -n 30 -- "$LOG" >&2; return 1; }
}

# --- [1/4] system ---

# Prints the first Python that is new enough and can build an extension.
find_python() {
  local candidate candidates=(python3 /usr/bin/python3 python3.{14..10})
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    "$candidate" - 2>/dev/null <<'CHECK' && echo "$candidate" && return
import ensurepip, os, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 10) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
CHECK
  done
  return 1
}

check_compiler() {
  local version
  version=$("${CXX:-c++}" -dumpversion 2>/dev/null | cut -d. -f1) || version=none
  [[ $version =~ ^[0-9]+$ ]] && ((version >= 12)) ||
    die "${CXX:-c++} has version $version, but g++ 12 or newer is needed: apt-get install g++-12 (on Debian 12), then set CXX=g++-12"
}

# Prints the Debian package of each header that the compiler does not find.
missing_headers() {
  local header package
  while read -r header package; do
    printf '#if !__has_include(<%s>)\n%s\n#endif\n' "$header" "$package"
  done <<'HEADERS' | "${CXX:-c++}" -E -P -x c++ -
nlohmann/json.hpp nlohmann-json3-dev
CLI/CLI.hpp libcli11-dev
jpeglib.h libjpeg62-turbo-dev
png.h libpng-dev
histedit.h libedit-dev
boost/asio/as_tuple.hpp libboost1.81-dev
HEADERS
}

missing_packages() {
  if command -v "${CXX:-c++}" >/dev/null; then
    missing_headers
  else
    printf '%s\n' g++ nlohmann-json3-dev libcli11-dev libjpeg62-turbo-dev libpng-dev libedit-dev libboost1.81-dev
  fi
  [[ -e .venv/bin/python || -n ${PYTHON:-} ]] || find_python >/dev/null || printf '%s\n' python3 python3-venv python3-dev
  ((with_tests)) || return 0
  [[ -e /usr/src/googletest/CMakeLists.txt ]] || echo googletest
  command -v ccache >/dev/null || echo ccache
  command -v clang-format-19 >/dev/null || echo clang-format-19
  command -v clang++-19 >/dev/null || printf '%s\n' clang-19 libclang-rt-19-dev
}

set_up_system() {
  local missing=() as_root=()
  if [[ -n ${CXX:-} ]] || command -v c++ >/dev/null; then
    check_compiler
  fi
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]})); then
    ((EUID == 0)) || as_root=(sudo -n)
    command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null ||
      die "Debian packages are missing; as root, run: apt-get install -y --no-install-recommends ${missing[*]}"
    note 1 "Debian packages: installing ${missing[*]} ..."
    logged "${as_root[@]}" apt-get update || die 'apt-get update failed, see above'
    logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
      install -y --no-install-recommends "${missing[@]}" || die 'apt-get install failed, see above'
  else
    note 1 'Debian packages: all there'
  fi
  check_compiler
}

# --- [2/4] and [3/4] .venv ---

# A .venv holds absolute paths, so it cannot be moved; and an interrupted pip may leave half a package in it.
set_up_venv() {
  local python
  if [[ -x .venv/bin/python && ! -e .venv/.installing && $(cat .venv/.place 2>/dev/null) == "$ROOT" ]]; then
    return
  fi
  python=$(find_python) ||
    die "${PYTHON:-python3} is not Python 3.10 or newer with venv and Python.h: install python3-venv and python3-dev, or set PYTHON to another one"
  rm -rf -- .venv
  logged "$python" -m venv .venv || die "$python cannot make .venv, see above"
  echo "$ROOT" >.venv/.place
}

# install_packages STEP WHAT FILE...: installs the last requirements file; the others are part of it.
install_packages() {
  local step=$1 what=$2 stamp key
  shift 2
  stamp=.venv/.$(basename -- "${!#}") key=$(cat -- "$@" | sha256sum)
  if [[ $(cat "$stamp" 2>/dev/null) == "$key" ]]; then
    note "$step" "$what: up to date"
    return
  fi
  note "$step" "$what: installing into .venv ..."
  if ((step == 2)) && [[ ! -e /proc/driver/nvidia/version ]]; then
    echo "      200 MB to download; 3 GB if pip takes a torch with CUDA: PyTorch's CPU index as PIP_INDEX_URL avoids that" >&2
  fi
  touch .venv/.installing
  logged .venv/bin/python -m pip install -r "${!#}" ||
    die "pip could not install ${!#}, see above. No network: set PIP_FIND_LINKS to a folder of wheels. Another index: set PIP_INDEX_URL"
  rm -f .venv/.installing
  echo "$key" >"$stamp"
}

# --- [4/4] .deps ---

# set_up_source NAME ARCHIVE FOLDER REQUIREMENTS NO_BINARY: unpacks a folder of a source archive as .deps/NAME.
set_up_source() {
  local name=$1 archive=$2 folder=$3 requirements=$4 no_binary=$5 key
  key=$(sha256sum <"$requirements")
  if [[ $(cat ".deps/$name/.stamp" 2>/dev/null) == "$key" ]]; then
    note 4 "$archive: up to date"
    return
  fi
  note 4 "$archive: fetching its sources ..."
  # errexit does not hold where a function stands before ||.
  rm -rf -- .deps/new ".deps/$name" &&
    logged .venv/bin/python -m pip download --no-binary "$no_binary" --no-deps --require-hashes \
      -r "$requirements" -d .deps/new &&
    tar -xzf ".deps/new/$archive.tar.gz" -C .deps/new --no-same-owner &&
    echo "$key" >".deps/new/$folder/.stamp" &&
    mv -T -- ".deps/new/$folder" ".deps/$name" &&
    rm -rf -- .deps/new
}

set_up_sources() {
  set_up_source sentencepiece "$SENTENCEPIECE" "$SENTENCEPIECE/sentencepiece" scripts/requirements-sources.txt :all: ||
    die "pip could not fetch $SENTENCEPIECE, see above. No network: set PIP_FIND_LINKS to a folder that holds $SENTENCEPIECE.tar.gz"
  # pip runs what builds it to read its name, and takes that as a wheel. The library builds without it.
  set_up_source xgrammar "$XGRAMMAR" "$XGRAMMAR" scripts/requirements-xgrammar.txt xgrammar ||
    note 4 "$XGRAMMAR: not there, see above; answers cannot be held to a schema or a grammar then"
}

with_tests=0
for arg in "$@"; do
  case $arg in
    --tests) with_tests=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown argument '$arg'" ;;
  esac
done
trap 'exit 130' INT TERM HUP
mkdir -p -- .deps
exec 9>.deps/.lock
flock 9  # Two runs at once would spoil each other's .venv.
[[ -n ${HOME:-} ]] || export PIP_NO_CACHE_DIR=1  # Else pip would make a cache at the file system's root.
export PIP_DISABLE_PIP_VERSION_CHECK=1

set_up_system
set_up_venv
install_packages 2 'LibTorch and CMake' scripts/requirements.txt
if ((with_tests)); then
  install_packages 3 'Test packages' scripts/requirements.txt scripts/requirements-test.txt
else
  note 3 'Test packages: skipped (--tests installs them)'
fi
set_up_sources
