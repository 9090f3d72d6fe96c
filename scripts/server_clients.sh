#!/usr/bin/env bash
# Lets other people's clients speak to `gemma serve`: installs them at pinned versions under build/clients, beside the
# packages of .venv, and runs their tests. Without arguments, all sets; needs a build of the preset dev.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: scripts/server_clients.sh [set…]

  openai3    openai 3, litellm, langchain-openai, llm
  openai2    openai 2, llama-index, instructor
  guidellm   guidellm, which loads a server and measures it
USAGE
}

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT
cd -- "$ROOT"

# run_set NAME TEST…: an environment of its own, as its packages want others of the same name.
run_set() {
  local name=$1 place=build/clients/$1
  shift
  if ! cmp -s "scripts/requirements-clients-$name.txt" "$place/installed.txt"; then
    rm -rf -- "$place"
    .venv/bin/python -m venv "$place"
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
    "$place/bin/python" -m pip install -q --disable-pip-version-check -r "scripts/requirements-clients-$name.txt"
    cp -- "scripts/requirements-clients-$name.txt" "$place/installed.txt"
  fi
  printf -- '--- %s\n' "$name"
  PYTHONPATH=build/dev/python "$place/bin/python" -m pytest -q -rs -W ignore -p no:cacheprovider "${@/#/tests/python/}"
}

run_named() {
  case $1 in
    openai3)
      run_set openai3 test_server_openai.py test_client_openai.py test_client_litellm.py test_client_langchain.py test_client_llm.py
      ;;
    openai2) run_set openai2 test_server_openai.py test_client_openai.py test_client_llama_index.py test_client_instructor.py ;;
    guidellm) run_set guidellm test_client_guidellm.py ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
}

[[ ${1:-} != -h && ${1:-} != --help ]] || { usage; exit 0; }
(($#)) || set -- openai3 openai2 guidellm
failed=0
for name in "$@"; do
  run_named "$name" || failed=1
done
exit "$failed"
