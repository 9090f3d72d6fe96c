"""Runs the notebooks of docs/notebooks without Jupyter, and writes what they show into them:

python tests/python/notebooks.py [one_prediction.ipynb ...]

It needs matplotlib, and build/dev/bin on the PATH.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def write(path: Path, notebook: dict[str, Any]) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def run(notebook: dict[str, Any], name: str) -> list[list[dict[str, Any]]]:
    """Runs the cells of code in their order, in one namespace; the working directory should be
    FOLDER, as with Jupyter. -> the outputs of each cell, as a notebook keeps them: what was
    printed, the last expression, pictures.
    """
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [
        _run_cell("".join(cell["source"]), namespace, count, f"{name}, cell {count}")
        for count, cell in enumerate(cells, 1)
    ]


def _run_cell(source: str, namespace: dict[str, Any], count: int, name: str) -> Any:
    tree = ast.parse(source, name)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        result = {"output_type": "execute_result", "execution_count": count}
        outputs.append({**result, "data": data, "metadata": {}})
    return outputs + _pictures()


def _pictures() -> list[dict[str, Any]]:
    """Those that were drawn since the last call."""
    from matplotlib import pyplot

    outputs = []
    for number in pyplot.get_fignums():
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=80, metadata={"Software": None})
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return outputs


def main() -> None:
    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(FOLDER)
    for path in [FOLDER / name for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        notebook = read(path)
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for count, (cell, outputs) in enumerate(
            zip(cells, run(notebook, path.name), strict=True), 1
        ):
            cell |= {"outputs": outputs, "execution_count": count}
        write(path, notebook)


if __name__ == "__main__":
    main()
