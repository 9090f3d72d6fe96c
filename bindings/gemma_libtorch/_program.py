"""Runs the gemma program that the package carries."""

import os
import pathlib
import sys


def main() -> None:
    program = pathlib.Path(__file__).with_name("bin") / "gemma"
    os.execv(program, [str(program), *sys.argv[1:]])
