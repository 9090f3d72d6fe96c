#!/usr/bin/env bash
# Includes inside gemma/ point down the list of layers only (CONTRIBUTING.md); fails on an upward one.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Folder -> what it may include besides itself.
declare -A below=(
  [checkpoint]=""
  [ops]=""
  [text]=""
  [modules]="ops"
  [vision]="ops modules"
  [models]="ops modules vision text checkpoint"
  [generate]="ops modules vision text checkpoint models"
  [cli]="ops modules vision text checkpoint models generate"
)

status=0
for folder in "${!below[@]}"; do
  allowed="config.h|errors.h|pch.h|vision/config.h|$folder/"
  for other in ${below[$folder]}; do allowed+="|$other/"; done
  if found=$(grep -rnE '#include ["<]gemma/' "gemma/$folder" | grep -vE "#include [\"<]gemma/($allowed)"); then
    printf 'gemma/%s may not include:\n%s\n' "$folder" "$found" >&2
    status=1
  fi
done
exit "$status"
