"""A report as a page: layers by positions as a heat map, and the table."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .page import SCRIPT, STYLE
from .report import Report, Row
from .report_text import cells, remark_of, shape_of

_TITLES = {
    "fed": (
        "Fed the reference's input",
        "Every value is computed from the reference's values before it: the fault stands alone.",
    ),
    "end_to_end": (
        "End to end",
        "Both models began with the same tokens: how a difference grows.",
    ),
}
_SMALLEST, _SHADES = -9, 9  # A shade for each power of ten below 1.


@dataclass(frozen=True)
class _Cell:
    """The largest relative difference of a layer at a token, and where in the layer it is."""

    relative: float
    name: str
    differs: bool


def shade_of(relative: float) -> int:
    """0 for equal values, 1 for less than a 1e-8th, up to 9 for a tenth and more."""
    if relative == 0:
        return 0
    if not relative < 1:
        return _SHADES
    return max(1, min(_SHADES, math.floor(math.log10(relative)) - _SMALLEST + 1))


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Before the layers, each layer, and after them."""
    layers = sorted({row.layer for row in rows if row.layer is not None})
    first = next((i for i, row in enumerate(rows) if row.layer is not None), len(rows))
    yield "embedding", list(rows[:first])
    for layer in layers:
        yield f"layer {layer}", [row for row in rows if row.layer == layer]
    yield "output", [row for row in rows[first:] if row.layer is None]


def _cell(report: Report, rows: list[Row], of: str, position: int) -> _Cell | None:
    found: list[_Cell] = []
    last = len(report.tokens) - 1
    for row in rows:
        measured = getattr(row, of)
        if measured is None:
            continue
        values = measured.by_position or [0.0] * last + [measured.relative]
        if position < len(values):
            name, relative = row.name, values[position]
            beyond = relative > (report.tolerance or 0.0)
            found.append(_Cell(relative, name, beyond))
    return max(found, key=lambda cell: cell.relative, default=None)


def _visible(token: str) -> str:
    """A token's text, or for blanks its literal."""
    return token if token.strip() else repr(token)[1:-1].replace(" ", "␣")


def _describe(group: str, token: str, cell: _Cell) -> str:
    if cell.relative == 0:
        return f"{group}, {token}: equal"
    return f"{group}, {token}: {cell.relative:.1e} of the largest value, at {cell.name}"


def _map(report: Report, of: str) -> Iterator[str]:
    title, meaning = _TITLES[of]
    yield f'<section><h2>{title}</h2><p>{meaning}</p><div class="scroll">'
    yield f'<table class="map" role="grid" aria-label="{title}"><thead><tr><th></th>'
    for token in report.tokens:
        yield f'<th scope="col"><span>{html.escape(_visible(token))}</span></th>'
    yield "</tr></thead><tbody>"
    for group, rows in _groups(report.rows):
        yield f'<tr><th scope="row">{group}</th>'
        for position, token in enumerate(report.tokens):
            cell = _cell(report, rows, of, position)
            if cell is None:
                yield '<td class="none"></td>'
                continue
            words = html.escape(_describe(group, repr(token), cell))
            power = "" if cell.relative == 0 else _power(cell.relative)
            mark = " beyond" if cell.differs and report.tolerance is not None else ""
            yield (
                f'<td class="s{shade_of(cell.relative)}{mark}" tabindex="-1" title="{words}" '
                f'aria-label="{words}">{power}</td>'
            )
        yield "</tr>"
    yield '</tbody></table></div><p class="said" aria-live="polite">&nbsp;</p></section>'


def _power(relative: float) -> str:
    return f"{math.floor(math.log10(relative))}".replace("-", "−") if relative < math.inf else "∞"


def _legend() -> str:
    steps = ["equal", "", "", "1e−7", "", "", "1e−4", "", "", "0.1"]
    shown = "".join(f'<li class="s{i}">{words}</li>' for i, words in enumerate(steps))
    return (
        f'<ol class="legend" aria-label="shades">{shown}</ol><p>The largest difference over the '
        "largest value of the reference's tensor; a number is its power of ten. Tab goes to a map, "
        "arrows from cell to cell. A cell with a frame is beyond the tolerance.</p>"
    )


def _row(report: Report, row: Row) -> str:
    fed = row.differs("fed", report.tolerance)
    whole = row.differs("end_to_end", report.tolerance)
    kind = "fault" if fed else "grown" if whole else ""
    mark = {"fault": "!", "grown": "~", "": ""}[kind]
    figures = "".join(
        f'<td class="figure">{cell}</td>'
        for measured in (row.fed, row.end_to_end)
        for cell in cells(measured)
    )
    return (
        f'<tr class="{kind}"><td class="mark">{mark}</td><th scope="row">{html.escape(row.name)}'
        f'</th><td class="figure">{html.escape(shape_of(row))}</td>{figures}'
        f"<td>{html.escape(remark_of(row))}</td></tr>"
    )


def _table(report: Report) -> Iterator[str]:
    columns = "".join(
        f'<th scope="col" class="figure">{name}</th>'
        for _ in _TITLES
        for name in ("equal", "largest", "mean", "ulp", "cosine")
    )
    yield "<section><h2>Values</h2><p>In the order of execution. “!”: differs when it is fed the "
    yield "reference's input. “~”: differs end to end only.</p>"
    yield '<div class="scroll tall" tabindex="0" aria-label="Values"><table class="values"><thead>'
    yield '<tr><th></th><th></th><th></th><th colspan="5">fed the reference\'s input</th>'
    yield '<th colspan="5">end to end</th><th></th></tr><tr><th></th><th scope="col">module</th>'
    yield f'<th scope="col" class="figure">shape</th>{columns}<th scope="col">in the reference</th></tr></thead>'
    yield "<tbody>"
    yield from (_row(report, row) for row in report.rows)
    yield "</tbody></table></div></section>"


def page_of(report: Report) -> str:
    """A page that needs nothing else: light and dark, by mouse and by keyboard."""
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in report.facts.items()
    )
    verdict = html.escape(report.verdict)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{verdict}</title><style>{STYLE}</style></head><body><main>",
        f'<h1 class="{"bad" if report.status else "good"}">{verdict[0].upper()}{verdict[1:]}</h1>',
        f"<dl>{facts}</dl>{_legend()}",
        '<div class="maps">',
        *_map(report, "fed"),
        *_map(report, "end_to_end"),
        "</div>",
        *_table(report),
    ]
    if report.theirs_only:
        names = html.escape(", ".join(report.theirs_only))
        parts.append(f"<p>In {report.reference} only: {names}</p>")
    parts.append(f"</main><script>{SCRIPT}</script></body></html>")
    return "\n".join(parts) + "\n"
