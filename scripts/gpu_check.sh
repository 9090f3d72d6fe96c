#!/usr/bin/env bash
# Builds on a machine with a CUDA GPU and runs the tests that need one. Needs no network: a Python with torch (2.11 or
# newer, CUDA build), cmake and ninja must be there, and .deps as scripts/bootstrap.sh fills it, carried along.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/gpu_check.sh

environment:
  PYTHON          the Python that has torch (default: python3)
  GEMMA_PYTORCH   a checkout of google/gemma_pytorch: compare with it live on the GPU
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
"$python" - <<'EOF'
import torch
print("torch", torch.__version__, "CUDA", torch.version.cuda)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: its tests will be skipped")
EOF

bindings=ON
"$python" -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
  { bindings=OFF; printf 'No Python.h for %s: the Python tests are left out.\n' "$python"; }

cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$python" -DGEMMA_BUILD_BINDINGS="$bindings"
cmake --build build/gpu
ctest --test-dir build/gpu --label-regex gpu --output-on-failure
if [[ $bindings == ON ]] && "$python" -c 'import pytest' 2>/dev/null; then
  PYTHONPATH=build/gpu/python "$python" -m pytest -q -rs tests/python -k cuda || [[ $? == 5 ]]
fi
build/gpu/bin/gemma info 270m >/dev/null
if [[ -e checkpoints/gemma-3-270m/model.ckpt ]]; then
  for dtype in float32 bfloat16; do
    build/gpu/bin/gemma run --ckpt checkpoints/gemma-3-270m/model.ckpt --device cuda --dtype "$dtype" --greedy \
      --output_len 64 --prompt="The capital of France is"
  done
fi
