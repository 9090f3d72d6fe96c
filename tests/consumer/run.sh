#!/usr/bin/env bash
# Installs the build folder $1 into a temporary place and builds this folder against it.
set -euo pipefail
build=$1
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
place=$(mktemp -d)
trap 'rm -rf -- "$place"' EXIT
cmake --install "$build" --prefix "$place/prefix" >/dev/null
cmake -S "$here" -B "$place/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$place/prefix" >/dev/null
cmake --build "$place/build"
"$place/build/consumer"
"$place/prefix/bin/gemma" info 270m | grep -q '268,098,176'
