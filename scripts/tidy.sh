#!/usr/bin/env bash
# Runs clang-tidy 19 with the checks of .clang-tidy over the C++ files named, or over all of them; fails on a finding.
# Half a minute and 1 GB a file, most of it for LibTorch's headers: hence no part of scripts/test.sh.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/tidy.sh [FILE.cc ...]

environment:
  CLANG_TIDY   the program to run (default: clang-tidy-19)
  JOBS         how many files at a time (default: 1)
EOF
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac

files=()
for file in "$@"; do files+=("$(realpath -- "$file")"); done
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
die() { printf 'tidy.sh: %s\n' "$*" >&2; exit 1; }

export TIDY=${CLANG_TIDY:-clang-tidy-19}
command -v "$TIDY" >/dev/null || die "$TIDY is not installed; apt-get install clang-tidy-19, or set CLANG_TIDY"
if ((${#files[@]} == 0)); then mapfile -t files < <(git ls-files '*.cc'); fi

# Clang cannot read GCC's precompiled header, so the commands come from a folder of their own, which is never built.
# CMake's log is kept back because each target warns that it does without the header.
if ! log=$(cmake -S . -B build/tidy -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON 2>&1); then
  printf '%s\n' "$log" >&2
  die "cmake failed"
fi

# One file's name and findings, without the count of what was found in the headers of others.
check() {
  local found status=0
  found=$("$TIDY" -p build/tidy --quiet "$1" 2>&1) || status=1
  printf -- '--- %s\n' "${1#"$PWD"/}"
  grep -vE '^[0-9]+ warnings? generated\.$' <<<"$found" || true
  return "$status"
}
export -f check

printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${JOBS:-1}" bash -c 'check "$1"' bash || die "there are findings"
