"""A model of this package held against its reference, value by value.

    from gemma_libtorch.diff import compare

    report = compare(ours, reference, token_ids)  # A model of gemma_pytorch, say.
    print(report.as_text())

`python -m gemma_libtorch.diff --help` does so for a checkpoint.
"""

from .compare import compare
from .measure import Measure, measure
from .report import Report, Row

__all__ = ["Measure", "Report", "Row", "compare", "measure"]
