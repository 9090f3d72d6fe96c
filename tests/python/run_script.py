"""Runs a script of gemma_pytorch, unchanged, with either package as `gemma`:

python run_script.py PACKAGE CONFIG SCRIPT [FLAGS...]

PACKAGE is gemma_libtorch, or the folder of a gemma_pytorch checkout. CONFIG is a JSON file with the
fields of the config that config.get_model_config is to return, as the reference's variants are all
far too large for a test.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path

import tiny


def main() -> None:
    package_name, config_file, script, *flags = sys.argv[1:]
    if package_name == "gemma_libtorch":
        for name in ("", ".config", ".model", ".tokenizer"):
            sys.modules["gemma" + name] = importlib.import_module(package_name + name)
    else:
        sys.path.insert(0, package_name)
        importlib.import_module("gemma.config")
    package = sys.modules["gemma"]
    fields = json.loads(Path(config_file).read_text())
    package.config.get_model_config = lambda variant: tiny.make_config(package, fields)
    sys.argv = [script, *flags]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
