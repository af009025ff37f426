"""`<results>/tables/tvlars_audit.csv`: each effect of the audit that has been measured, with its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from lbt.report.audit.switch_effects import Comparison
from lbt.report.kit import render

NAME = "tvlars_audit"


def csv(titles: Mapping[str, tuple[Any, str]], compared: Mapping[str, Sequence[Comparison]]) -> str:
    """Returns the effects as CSV, a row for each comparison with runs on both sides.

    Args:
        titles: switch -> number and title of its row.
        compared: the comparisons by switch.
    """
    return render.csv(
        [
            {"row": row, "title": title, "switch": switch, **_effect(line)}
            for switch, (row, title) in titles.items()
            for line in compared.get(switch, ())
            if line.base.runs and line.switched.runs
        ],
        ["row", "title", "switch", *_COLUMNS],
    )


_COLUMNS = (
    "optimizer", "batch", "peak_rate", "epochs", "fingerprint", "precision", "without", "with", "difference", "low",
    "high", "said", "runs_without", "runs_with",
)  # fmt: skip


def _effect(line: Comparison) -> dict[str, Any]:
    low, high = ("" if bound is None else f"{bound:.4f}" for bound in line.interval or (None, None))
    both = line.base.values and line.switched.values
    sides = (line.base, line.switched)
    runs = (" ".join(run["id"] for run in side.runs) for side in sides)
    return dict(
        zip(
            _COLUMNS,
            (
                *(line.optimizer, line.batch, f"{line.rate:g}", line.epochs, line.fingerprint, line.precision),
                *(side.text() for side in sides),
                *(f"{line.difference:.4f}" if both else "", low, high, line.said()),
                *runs,
            ),
            strict=True,
        )
    )
