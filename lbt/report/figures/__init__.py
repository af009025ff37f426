"""Figures from records: what a YAML file of `configs/figure` describes, drawn as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path

from lbt.config.binding import pick
from lbt.records import replace_file
from lbt.report import overview
from lbt.report.frame import load_or_refuse
from lbt.report.kit import specs
from lbt.report.kit.backend import import_matplotlib

GROUP = "figure"


def names() -> list[str]:
    """Returns the figures there are."""
    return specs.names(GROUP)


def write_figures(wanted: Sequence[str], results_dir: str | Path) -> int:
    """Draws `<results_dir>/figures/<name>.svg` and `.png` for each wanted figure and returns the exit code.

    A figure without any record is not drawn, and said not to be.

    Raises:
        UserError: there is no such figure, or nothing at `results_dir`.
    """
    specs.refuse_unknown(GROUP, wanted)
    import_matplotlib()  # only here, so that nothing else waits for it
    from lbt.report.figures.kinds import KINDS
    from lbt.report.figures.spec import Spec
    from lbt.report.kit.style import context, encode

    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "figures"
    folder.mkdir(exist_ok=True)
    with context():
        for name in wanted or names():
            spec = Spec(**specs.bound(Spec, GROUP, name))
            figure = pick("kind", spec.kind, KINDS)(spec, frame)
            if figure is None:
                print(f"{name}: not drawn, there is no record of it yet")
                continue
            for ending, content in encode(figure, spec.title, spec.shows, f"lbt plots {name}").items():
                replace_file(folder / f"{name}.{ending}", content)
            print(folder / f"{name}.png")
    overview.write(results_dir)
    return 0
