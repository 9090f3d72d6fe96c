#!/usr/bin/env bash
# Builds on a machine with a CUDA GPU, runs the tests that need one, and measures speed. Needs no network: a Python with
# torch (2.11 or newer, CUDA build), cmake and ninja must be there, and .deps as scripts/bootstrap.sh fills it, carried
# along. Debian's packages are the machine's own, or come along as well; where there is a network:
#   apt-get download nlohmann-json3-dev libcli11-dev libjpeg62-turbo-dev libpng-dev libpng16-16 libjpeg62-turbo libedit-dev libedit2 libboost1.81-dev libgtest-dev
#   for package in *.deb; do dpkg -x "$package" debian; done
# and on the GPU machine: CMAKE_PREFIX_PATH=$PWD/debian/usr scripts/gpu_check.sh
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/gpu_check.sh

environment:
  PYTHON          the Python that has torch (default: python3)
  GEMMA_PYTORCH   a checkout of google/gemma_pytorch: compare numbers and speed with it
EOF
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=$(command -v "${PYTHON:-python3}")
die() { printf 'gpu_check.sh: %s\n' "$*" >&2; exit 1; }

"$python" -c 'import torch' 2>/dev/null || die "$python has no torch; set PYTHON to one that has"
[[ -e .deps/sentencepiece/CMakeLists.txt ]] || die "no .deps/sentencepiece; run scripts/bootstrap.sh where there is a network and carry .deps along"
"$python" - <<'EOF' || die "torch finds no CUDA GPU here"
import sys, torch
print("torch", torch.__version__, "CUDA", torch.version.cuda)
torch.cuda.is_available() or sys.exit(1)
print(torch.cuda.get_device_name())
EOF

targets=(gemma_cli cuda_test)
bindings=OFF
if [[ -z ${GEMMA_PYTORCH:-} ]]; then
  printf 'GEMMA_PYTORCH is not set: nothing is compared with the reference.\n'
elif ! "$python" -c 'import os, pytest, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; then
  printf 'No pytest or no Python.h for %s: the Python tests are left out.\n' "$python"
else
  bindings=ON
  targets+=(gemma_python)
fi

cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$python" -DGEMMA_BUILD_BINDINGS="$bindings"
cmake --build build/gpu --target "${targets[@]}"

# One that fails does not keep the others from running.
failed=0
check() {
  printf '\n$ %s\n' "$*"
  "$@" || { printf 'failed with %s\n' "$?" >&2; failed=1; }
}

gemma=build/gpu/bin/gemma
check build/gpu/bin/cuda_test --gtest_brief=1
if [[ $bindings == ON ]]; then
  check env PYTHONPATH=build/gpu/python "$python" -m pytest -q -rs tests/python/test_reference_cuda.py
fi
if [[ -e checkpoints/gemma-3-270m/model.ckpt ]]; then
  for dtype in float32 bfloat16; do
    check "$gemma" run --ckpt checkpoints/gemma-3-270m/model.ckpt --device cuda --dtype "$dtype" --greedy \
      --output_len 64 --prompt="The capital of France is"
  done
fi
compare=()
[[ -n ${GEMMA_PYTORCH:-} ]] && compare=(--compare-python "$GEMMA_PYTORCH" --python "$python" --python-dtype bfloat16)
check "$gemma" bench --variant 270m --dtype bfloat16 --device cuda -p 512 -n 64 "${compare[@]}"
exit "$failed"
