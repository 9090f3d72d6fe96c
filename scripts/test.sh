#!/usr/bin/env bash
# Builds everything and runs every test: formatting, layers, C++ (plain and under sanitizers), Python, a consumer of the
# installed package, a short fuzz run. Closes with "N passed, N failed, N skipped", a skip having said why.
set -uo pipefail

usage() {
  cat <<'EOF'
usage: scripts/test.sh [--quick | --all]

  --quick   leave out the sanitizers and the fuzz run
  --all     also send ten thousand texts through the engine under AddressSanitizer and under ThreadSanitizer,
            and let 200 clients at once speak to a server under the latter

environment:
  GEMMA_PYTORCH     a checkout of google/gemma_pytorch: compare with it live, bit for bit
  RECURRENTGEMMA    a checkout of google-deepmind/recurrentgemma: likewise
  GEMMA3_TOKENIZER  the tokenizer.model of a Gemma 3 from Google: compare ids with it
  FUZZ_SECONDS      how long to fuzz all readers together (default: 30)
EOF
}

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
readonly RESULTS=$ROOT/build/test-results
quick='' all=''
passed=0 failed=0 skipped=0

note() { printf '%s\n' "$*"; }

# check NAME COMMAND…: one more test, passed or failed by its exit status.
check() {
  local name=$1
  shift
  note "--- $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    note "FAILED: $name"
  fi
}

skip() {
  skipped=$((skipped + 1))
  note "--- $1"
  note "SKIPPED: $2"
}

# Adds up the JUnit files that GoogleTest and pytest wrote, naming what was skipped and what failed.
count_results() {
  local counts
  counts=$("$ROOT/.venv/bin/python" - "$RESULTS" <<'EOF'
import pathlib, sys
import xml.etree.ElementTree as ET

passed = failed = skipped = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.xml")):
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            print(f"FAILED: {name}", file=sys.stderr)
        elif skip is not None:
            skipped += 1
            reason = " ".join((skip.get("message") or skip.text or "").split())
            print(f"SKIPPED: {name}: {reason}", file=sys.stderr)
        else:
            passed += 1
print(passed, failed, skipped)
EOF
  ) || return 1
  read -r p f s <<<"$counts"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# A build that fails goes on with one file at a time: g++ maps half a GB for the precompiled header, and stops where memory
# is short. What is wrong otherwise fails once more, at once.
build() {
  cmake --preset "$1" && { cmake --build --preset "$1" || cmake --build --preset "$1" --parallel 1; }
}

# A real model as a checkpoint, for the tests that use one; they say so where it is missing.
make_checkpoint() {
  local folder=checkpoints/gemma-3-270m
  if [[ -e $folder/model.gguf && ! -e $folder/model.ckpt ]]; then
    build/dev/bin/gemma convert "$folder/model.gguf" "$folder/model.ckpt" --dtype bfloat16
  fi
}

# Results go where count_results looks; ctest's own verdict covers crashes and time-outs.
run_tests() {
  GTEST_OUTPUT="xml:$RESULTS/$1/" PYTEST_ADDOPTS="--junitxml=$RESULTS/$1/python.xml" ctest --preset "$1"
}

dev() {
  build dev && make_checkpoint && run_tests dev
}

sanitized() {
  build asan && run_tests asan
}

# many_texts PRESET: ten thousand, over the three families, cancelled at any point. LibTorch's own threads are none of
# ThreadSanitizer's business: it does not see how they wait for each other.
many_texts() {
  build "$1" &&
    OMP_NUM_THREADS=1 GEMMA_TEST_TEXTS=3336 "build/$1/bin/engine_test" --gtest_filter='*NoBlockIsLostWhereTextsAreCancelled*'
}

many_clients() {
  OMP_NUM_THREADS=1 GEMMA_TEST_CLIENTS=200 "build/$1/bin/server_test"
}

formatted() {
  git ls-files '*.cc' '*.h' | xargs clang-format-19 --dry-run --Werror
}

# fuzzed NAME SEEDS: runs NAME_fuzz for its part of the seconds, from what tests/fuzz/SEEDS.py makes.
fuzzed() {
  local corpus=$ROOT/build/fuzz/$2_corpus seconds=${FUZZ_SECONDS:-30}
  "$ROOT/.venv/bin/python" "tests/fuzz/$2.py" "$corpus" &&
    "build/fuzz/bin/$1_fuzz" -dict="tests/fuzz/$1.dict" -max_len=65536 -rss_limit_mb=2048 \
      -max_total_time="$(((seconds + 4) / 5))" -print_final_stats=1 "$corpus" 2>&1 | tail -n 20
  return "${PIPESTATUS[0]}"
}

case ${1:-} in
  --quick) quick=1 ;;
  --all) all=1 ;;
  -h | --help) usage; exit 0 ;;
  '') ;;
  *) usage >&2; exit 2 ;;
esac

cd -- "$ROOT" || exit 1
scripts/bootstrap.sh --tests || exit 1
.venv/bin/python scripts/fetch_gemma_3_270m.py --out checkpoints/gemma-3-270m ||
  note "No Gemma 3 270M here: its tests will be skipped."
export PATH=$ROOT/.venv/bin:$PATH
rm -rf -- "$RESULTS"

if command -v clang-format-19 >/dev/null; then
  check "clang-format" formatted
else
  skip "clang-format" "clang-format-19 is not installed (apt-get install clang-format-19)"
fi
check "layers: includes point down" scripts/check_includes.sh
check "build and test (dev)" dev
if [[ -z $quick ]]; then
  if command -v clang++-19 >/dev/null; then
    check "build and test under AddressSanitizer and UndefinedBehaviorSanitizer" sanitized
    check "build the fuzz targets" build fuzz
    check "fuzz the checkpoint reader" fuzzed checkpoint make_corpus
    check "fuzz the GGUF reader" fuzzed gguf make_corpus
    check "fuzz the safetensors reader" fuzzed safetensors make_corpus
    check "fuzz the image decoders" fuzzed image make_image_corpus
    check "fuzz the requests of the server" fuzzed request make_request_corpus
    if [[ -n $all ]]; then
      check "many texts under AddressSanitizer" many_texts asan
      check "many texts under ThreadSanitizer" many_texts tsan
      check "many clients under ThreadSanitizer" many_clients tsan
    fi
  else
    skip "sanitizers and fuzzing" "clang++-19 is not installed (apt-get install clang-19 libclang-rt-19-dev)"
  fi
fi
count_results || failed=$((failed + 1))

note ""
note "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
