"""What a comparison found."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from .measure import Measure

PASSES = ("fed", "end_to_end")


@dataclass(frozen=True)
class Row:
    """A module, or another value inside of a model."""

    name: str
    """The path of our module, or the name of our point, as docs/hooks.md has it."""
    theirs: str
    """That of the reference; empty when it has none."""
    layer: int | None
    fed: Measure | None = None
    """Where what comes before has the reference's values."""
    end_to_end: Measure | None = None
    """Where both models began with the same token ids."""
    note: str = ""
    """Why it is not compared."""
    meaning: str = ""
    """What the value is, where no module's name says it."""
    is_missing: bool = False
    """Whether the reference lacks a module that it should have."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.meaning}" if self.meaning else self.name

    @property
    def shape(self) -> tuple[int, ...] | None:
        measured = self.fed or self.end_to_end
        return None if measured is None else measured.shapes[0]

    def differs(self, of: str, tolerance: float | None = None) -> bool:
        measured: Measure | None = getattr(self, of)
        return self.is_missing or (measured is not None and measured.exceeds(tolerance))


@dataclass(frozen=True)
class Report:
    """Rows in the order of execution."""

    rows: list[Row]
    reference: str
    tokens: list[str]
    """The text's, or its ids."""
    tolerance: float | None = None
    facts: dict[str, str] = field(default_factory=dict)
    """What was compared, in words."""
    theirs_only: list[str] = field(default_factory=list)
    """The reference's modules that no row names."""

    def first(self, of: str) -> Row | None:
        """The first row that differs in a pass, "fed" or "end_to_end"."""
        return next((row for row in self.rows if row.differs(of, self.tolerance)), None)

    @property
    def status(self) -> int:
        """1 when anything differs, else 0."""
        return int(any(self.first(of) is not None for of in PASSES))

    @property
    def verdict(self) -> str:
        fed, whole = self.first("fed"), self.first("end_to_end")
        within = "" if self.tolerance is None else f" beyond {self.tolerance:g}"
        compared = sum(row.fed is not None for row in self.rows)
        if fed is not None and fed.is_missing:
            return f"the first that differs: {fed.name} ({self.reference} has no such module)"
        if fed is not None:
            return f"the first that differs{within}: {fed.title}"
        if whole is not None:
            return (
                f"no module differs{within} by itself; end to end the first is {whole.title}: "
                "small differences have grown"
            )
        if self.tolerance is None:
            return f"all {compared} values are equal to the last bit"
        return f"all {compared} values are within {self.tolerance:g}"

    def as_json(self) -> str:
        """Every figure; infinity and NaN as Python writes them."""
        document: dict[str, Any] = {
            "verdict": self.verdict,
            "status": self.status,
            "reference": self.reference,
            **{f"first_{of}": row and row.name for of in PASSES for row in [self.first(of)]},
            "tolerance": self.tolerance,
            "facts": self.facts,
            "tokens": self.tokens,
            "theirs_only": self.theirs_only,
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }
        return json.dumps(document, indent=1)

    def as_text(self) -> str:
        from .report_text import text_of

        return text_of(self)

    def as_html(self) -> str:
        """One page that needs nothing else."""
        from .report_html import page_of

        return page_of(self)
