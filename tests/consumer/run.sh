#!/usr/bin/env bash
# Installs the build folder $1 into a temporary place, and builds this folder and README's example against it.
set -euo pipefail
build=$1
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$here/../..
place=$(mktemp -d)
trap 'rm -rf -- "$place"' EXIT

# block LANGUAGE: README's code in that language.
block() {
  sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" "$root/README.md" | sed '1d;$d'
}

# build_project SOURCE BUILD
build_project() {
  cmake -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$place/prefix" >/dev/null
  cmake --build "$2"
}

cmake --install "$build" --prefix "$place/prefix" >/dev/null
build_project "$here" "$place/build"
"$place/build/consumer"
# Not grep -q, which ends at the first match, and the program with it.
"$place/prefix/bin/gemma" info 270m | grep '268,098,176' >/dev/null

mkdir "$place/readme"
block cpp >"$place/readme/hello.cc"
block cmake >"$place/readme/CMakeLists.txt"
build_project "$place/readme" "$place/hello"
if [[ -e $root/checkpoints/gemma-3-270m/model.ckpt ]]; then
  # It samples without a seed: any text will do.
  text=$(cd -- "$root" && "$place/hello/hello")
  [[ -n ${text// /} ]]
else
  echo "README's example is built, not run: checkpoints/gemma-3-270m is not there, scripts/quickstart.sh makes it"
fi
