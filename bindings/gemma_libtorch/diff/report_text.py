"""A report as text: a table, and the module that is at fault."""

from __future__ import annotations

from collections.abc import Iterator

from .measure import Measure
from .report import Report, Row

_COLUMNS = ("equal", "largest", "mean", "ulp", "cosine")
_WIDTHS = (5, 8, 8, 8, 10)


def _figure(x: float) -> str:
    return "0" if x == 0 else f"{x:.1e}"


def cells(measured: Measure | None) -> tuple[str, ...]:
    """Under `equal`, `largest`, `mean`, `ulp` and `cosine`; equal values need no figures."""
    if measured is None:
        return ("",) * len(_COLUMNS)
    if measured.is_equal:
        return ("yes", "", "", "", "")
    if measured.ulps is None:
        ulps = "-"
    else:
        ulps = str(measured.ulps) if measured.ulps < 10**7 else f"{measured.ulps:.1e}"
    return (
        "no",
        _figure(measured.largest),
        _figure(measured.mean),
        ulps,
        f"{measured.cosine:.8f}",
    )


def shape_of(row: Row) -> str:
    shape = "x".join(map(str, row.shape or ()))
    for measured in (row.fed, row.end_to_end):
        if measured is not None and measured.shapes[0] != measured.shapes[1]:
            return f"{shape}, not {'x'.join(map(str, measured.shapes[1]))}"
    return shape


def _below_layer(path: str, layer: int | None) -> str:
    """A path of the reference without that of the layer, which the row's name says."""
    return path.partition(f".layers.{layer}.")[2] or path


def remark_of(row: Row) -> str:
    """What the reference calls it, and why it is not compared."""
    measured = row.fed or row.end_to_end
    words = [] if row.theirs in (row.name, "") else [_below_layer(row.theirs, row.layer)]
    if measured is not None and measured.dtypes[0] != measured.dtypes[1]:
        words.append(f"{measured.dtypes[0]}, not {measured.dtypes[1]}")
    return "; ".join([*words, *([row.note] if row.note else [])])


def _line(mark: str, name: str, width: int, shape: str, *passes: tuple[str, ...]) -> str:
    figures = [
        " ".join(cell.rjust(size) for cell, size in zip(cells, _WIDTHS, strict=True))
        for cells in passes
    ]
    return f"{mark} {name.ljust(width)} {shape:>16}  " + "   ".join(figures)


def _table(report: Report) -> Iterator[str]:
    width = max(len(row.name) for row in report.rows)
    half = sum(_WIDTHS) + len(_WIDTHS) - 1
    yield " " * (width + 21) + "fed the reference's input".ljust(half) + "   end to end"
    yield _line(" ", "module", width, "shape", _COLUMNS, _COLUMNS) + "   in the reference"
    for row in report.rows:
        differs = any(row.differs(of, report.tolerance) for of in ("fed", "end_to_end"))
        at_fault = row.differs("fed", report.tolerance)
        mark = "!" if at_fault else "~" if differs else " "
        figures = (cells(row.fed), cells(row.end_to_end))
        line = _line(mark, row.name, width, shape_of(row), *figures)
        yield f"{line}   {remark_of(row)}".rstrip()


def text_of(report: Report) -> str:
    """One line a value. "!" marks those that differ when they are fed the reference's input, "~" those
    that differ end to end only.
    """
    lines = [f"{name}: {value}" for name, value in report.facts.items()]
    lines += ["", *_table(report), ""]
    if report.theirs_only:
        lines.append(f"in {report.reference} only: {', '.join(report.theirs_only)}")
    lines.append(report.verdict)
    return "\n".join(lines)
