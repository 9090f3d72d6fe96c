#!/usr/bin/env bash
# Makes a wheel of the build folder $1, installs it by the Python $2 into a fresh environment beside torch, and uses it.
set -euo pipefail
build=$1 python=$2
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
place=$(mktemp -d)
trap 'rm -rf -- "$place"' EXIT

"$python" "$root/scripts/make_wheel.py" "$build" "$place" &>"$place/log" || { cat "$place/log" >&2; exit 1; }
"$python" -m venv --without-pip "$place/venv"
# Torch is linked, not downloaded again; what it imports is found where it is.
torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
site=$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -s "$torch" "$site/torch"
dirname "$torch" >"$site/torch.pth"
"$python" -m pip --python "$place/venv/bin/python" --disable-pip-version-check install --quiet --no-index "$place"/*.whl

# Neither the checkout nor the build folder may be of help.
cd -- "$place"
run() { env -i PATH=/usr/bin:/bin HOME="$place" "$@"; }
# Where the loader looks; debug symbols may name the folder.
if readelf -d "$site"/gemma_libtorch/*.so* "$site/gemma_libtorch/bin/gemma" | grep -F -- "$build"; then
  echo "The entries above name the build folder." >&2
  exit 1
fi
run "$place/venv/bin/gemma" info 270m | grep '268,098,176' >/dev/null
run "$place/venv/bin/python" - <<'PYTHON'
import gemma_libtorch, pathlib, torch
from gemma_libtorch import config, model

package = pathlib.Path(gemma_libtorch.__file__).parent
assert package.parent.name == "site-packages", package
assert (package / "py.typed").exists() and (package / "model.pyi").exists()
tiny = config.get_model_config("270m", dtype="float32")
tiny.num_hidden_layers, tiny.vocab_size, tiny.hidden_size, tiny.intermediate_size = 1, 32, 16, 32
torch.manual_seed(0)
mlp = model.GemmaMLP(16, 32, quant=False)
assert mlp.forward(torch.ones(1, 2, 16)).shape == (1, 2, 16)
tiny.tokenizer = None
names = dict(model.GemmaForCausalLM(tiny).named_parameters())
assert names["embedder.weight"].shape == (32, 16), names.keys()
PYTHON
checkpoint=$root/checkpoints/gemma-3-270m/model.ckpt
if [[ -e $checkpoint ]]; then
  options=(--ckpt "$checkpoint" --greedy --output_len 5 --prompt "The capital of France is")
  text=$(run "$place/venv/bin/gemma" run "${options[@]}" 2>/dev/null)
  [[ -n $text && $text == "$("$build/bin/gemma" run "${options[@]}" 2>/dev/null)" ]]
else
  echo "No Gemma 3 270M here: the wheel's program did not run one."
fi
