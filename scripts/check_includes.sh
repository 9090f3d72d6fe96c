#!/usr/bin/env bash
# Fails when a file of gemma/ includes one of a room above its own. The rooms, low to high, are those of CONTRIBUTING.md.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# Room -> what it may include besides itself, gemma/config and gemma/errors.h.
declare -A below=(
  [config]=""
  [checkpoint]=""
  [text]=""
  [image]=""
  [ops]="checkpoint"
  [modules]="checkpoint ops"
  [vision]="text image ops modules"
  [weights]="checkpoint text ops modules"
  [models]="checkpoint text image ops modules vision weights"
  [convert]="checkpoint text ops modules weights"
  [engine]="checkpoint text ops modules models"
  [generate]="text image ops modules vision weights models engine"
  [server]="checkpoint text ops modules models engine generate"
  [cli]="checkpoint text image ops modules vision weights models convert engine generate server"
)

status=0
for room in gemma/*/; do
  room=$(basename -- "$room")
  if [[ -z ${below[$room]+known} ]]; then
    printf 'gemma/%s is a room that scripts/check_includes.sh does not know\n' "$room" >&2
    status=1
    continue
  fi
  allowed="errors.h|pch.h|config/|$room/"
  for other in ${below[$room]}; do allowed+="|$other/"; done
  if found=$(grep -rnE '#include ["<]gemma/' "gemma/$room" | grep -vE "#include [\"<]gemma/($allowed)"); then
    printf 'gemma/%s may not include:\n%s\n' "$room" "$found" >&2
    status=1
  fi
done
exit "$status"
