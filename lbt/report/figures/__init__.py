"""Figures from records, drawn as SVG and PNG.

A YAML file of `configs/figure` describes one; of a sweep without such a file the description is made from its records.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lbt.config.binding import pick
from lbt.records import replace_file
from lbt.report import automatic, overview
from lbt.report.frame import Frame, load_or_refuse
from lbt.report.kit import specs
from lbt.report.kit.backend import import_matplotlib
from lbt.report.layout import AUTOMATIC, Wanted

GROUP = "figure"


def names() -> list[str]:
    """Returns the figures there are."""
    return specs.names(GROUP)


def write_figures(wanted: Sequence[str], results_dir: str | Path, layout: Wanted = AUTOMATIC) -> int:
    """Draws `<results_dir>/figures/<name>.svg` and `.png` for each wanted figure and returns the exit code.

    A figure without any record is not drawn, and said not to be.

    Args:
        wanted: names of figures, or of sweeps with records; none: all figures that a file describes.
        results_dir: where records and figures lie.
        layout: what to show of a sweep.

    Raises:
        UserError: there is no such figure or sweep, or nothing at `results_dir`.
    """
    automatic.refuse_unknown(GROUP, wanted, results_dir, layout)
    import_matplotlib()  # only here, so that nothing else waits for it
    from lbt.report.figures.kinds import KINDS
    from lbt.report.figures.spec import Spec
    from lbt.report.kit.style import context, encode

    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "figures"
    folder.mkdir(exist_ok=True)
    with context():
        for name, described, command in _described(wanted or names(), frame, layout):
            spec = Spec(**described)
            figure = pick("kind", spec.kind, KINDS)(spec, frame)
            if figure is None:
                print(f"{name}: not drawn, there is no record of it yet")
                continue
            for ending, content in encode(figure, spec.title, spec.shows, command).items():
                replace_file(folder / f"{name}.{ending}", content)
            print(folder / f"{name}.png")
    overview.write(results_dir)
    return 0


def _described(wanted: Sequence[str], frame: Frame, layout: Wanted) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields each figure's name, description and command; a sweep may have several."""
    from lbt.report.figures.spec import Spec

    for name in wanted:
        if name in names():
            yield name, specs.bound(Spec, GROUP, name), f"lbt plots {name}"
        else:
            for figure, described in automatic.figures(name, frame, layout).items():
                yield figure, described, f"lbt plots {name}{layout.command()}"
