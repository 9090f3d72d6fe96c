#!/usr/bin/env bash
# From a fresh checkout to text by Gemma 3 270M: sets up, builds, makes the model's files, continues a prompt.
# The continuation goes to stdout, all else to stderr. Safe to interrupt; a second run takes seconds.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/quickstart.sh [PROMPT]

Continues PROMPT (default: "The capital of France is") by 60 tokens, always the likeliest one.
EOF
}

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
readonly LOG=$ROOT/build/quickstart.log
readonly PROGRAM=$ROOT/build/release/bin/gemma
readonly CHECKPOINT=$ROOT/checkpoints/gemma-3-270m

# build_step COMMAND…: the output goes to the log; the terminal sees ninja's counter, or the log's end after a failure.
build_step() {
  local line rc=0
  printf '\n$ %s\n' "$*" >>"$LOG"
  "$@" 2>&1 </dev/null | while IFS= read -r line; do
    printf '%s\n' "$line" >>"$LOG"
    if [[ -t 2 && $line == \[*/*\]* ]]; then
      printf '\r      %s\033[K' "${line:0:70}" >&2
    fi
  done || rc=$?
  if [[ -t 2 ]]; then
    printf '\r\033[K' >&2
  fi
  if ((rc != 0)); then
    tail -n 30 -- "$LOG" >&2
    printf 'quickstart.sh: the build failed, see above; all of its output is in build/quickstart.log\n' >&2
    exit "$rc"
  fi
}

build() {
  mkdir -p -- "$ROOT/build"
  : >"$LOG"
  # The presets name cmake's generator, not its place; .venv/bin holds both cmake and ninja.
  export PATH=$ROOT/.venv/bin:$PATH NINJA_STATUS='[%f/%t, %es] '
  if [[ -z ${HOME:-} ]]; then
    export CCACHE_DIR=${CCACHE_DIR:-$ROOT/build/ccache}
  fi
  cd -- "$ROOT"
  if [[ ! -e build/release/build.ninja || CMakePresets.json -nt build/release/build.ninja ]]; then
    printf 'Configuring …\n' >&2
    build_step cmake --preset release
  fi
  printf 'Building (the first time takes some minutes) …\n' >&2
  build_step cmake --build --preset release --target gemma_cli
  [[ -x $PROGRAM ]] || {
    printf 'quickstart.sh: the build made no build/release/bin/gemma; was the preset changed?\n' >&2
    exit 1
  }
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac
if (($# > 1)); then
  usage >&2
  printf 'quickstart.sh: got %d arguments; quote the prompt to make it one\n' "$#" >&2
  exit 2
fi
prompt=${1-The capital of France is}

"$ROOT/scripts/bootstrap.sh" >&2
build
"$ROOT/.venv/bin/python" "$ROOT/scripts/fetch_gemma_3_270m.py" --out "$CHECKPOINT" >&2
if [[ ! -e $CHECKPOINT/model.ckpt ]]; then
  "$PROGRAM" convert "$CHECKPOINT/model.gguf" "$CHECKPOINT/model.ckpt" --dtype bfloat16 >&2
fi
exec "$PROGRAM" run --ckpt "$CHECKPOINT/model.ckpt" --variant 270m --output_len 60 --greedy --prompt="$prompt"
