"""What the probes of a run saw, as its record holds it."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lbt import records
from lbt.report.frame import select

WHEN = ("updates", "first_epochs")  # settings of a probe that say when it looks


def looked_at(probe: Mapping[str, Any]) -> str:
    """Returns in words what the figures of `Looks.probe`'s settings stand on."""
    shown = "curvature of {images:,} images, gradient noise of {noise_images:,}, micro-batches of {micro_batch}"
    return shown.format_map(probe)


@dataclass(frozen=True)
class Looks:
    """The epochs' lines of a record.

    Attributes:
        lines: one an epoch.
        steps: updates of the whole training, as it was meant to be.
        probe: settings of the probes that figures depend on; none where there were no probes.
    """

    lines: list[dict[str, Any]]
    steps: int
    probe: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Looks":
        """Returns those of a row of a frame."""
        record, steps = records.read(run["path"]), run["summary"].get("steps")
        if run["status"] != "done" or not steps:
            steps = (run["steps_per_epoch"] or 1) * int(run["settings"]["epochs"])
        probe = {key: one for key, one in record.run["config"].get("probe", {}).items() if key not in WHEN}
        return cls(record.epochs, int(steps), probe)

    def seen(self, probe: str) -> list[dict[str, Any]]:
        """Returns the looks of a probe in their order, each with `step`, the updates made by then; none that failed."""
        found = []
        for line in self.lines:
            entry = line.get(probe) or {}
            found += [*entry.get("earlier", []), *([entry] if "step" in entry else [])]
        return [one for one in found if "error" not in one]

    def series(self, probe: str, figure: str) -> list[tuple[int, float]]:
        """Returns (updates made, figure) of each look that has it: `a.b` is b within a, or one of `DERIVED`."""
        known = [(one["step"], _within(one, figure)) for one in self.seen(probe)]
        return [(step, float(value)) for step, value in known if _finite(value)]

    def norms(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the updates made before each measurement of `layer_norms` [M] and the gradients' norms [M, layer]."""
        found = [line["layer_norms"] for line in self.lines if line.get("layer_norms")]
        steps = np.array([step for one in found for step in one["steps"]], dtype=float)
        return steps, np.array([row for one in found for row in one["lgn"]], dtype=float)


def _layer_temperature(look: Mapping[str, Any]) -> Any:
    """Returns the median layer's temperature; that of the training where all layers have its rate."""
    layers = _within(look, "by_layer.temperature")
    return look.get("temperature") if layers is None else statistics.median(layers)


DERIVED = {"layer_temperature": _layer_temperature}  # figures made of those that a look has


def _within(look: Mapping[str, Any], figure: str) -> Any:
    if figure in DERIVED:
        return DERIVED[figure](look)
    value: Any = look
    for key in figure.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def named(runs: pd.DataFrame, variants: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns the runs of some variants, with a column `variant` that says of which.

    Args:
        runs: of a frame.
        variants: name -> setting -> value, as of `lbt.report.frame.select`; a run is of the first that it fits.
    """
    if runs.empty:
        return runs.assign(variant=[])
    variant = pd.Series([None] * len(runs), index=runs.index, dtype=object)
    for name, wanted in variants.items():
        fits = select(runs, wanted).index
        variant.loc[[place for place in fits if variant.loc[place] is None]] = name
    return runs.assign(variant=variant)[variant.notna()]
