"""Figures from records: what a YAML file of `configs/figure` describes, drawn as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lbt.config import CONFIG_DIR
from lbt.errors import UserError, did_you_mean
from lbt.records import replace_file
from lbt.report import overview
from lbt.report.frame import load_or_refuse
from lbt.report.kit.backend import import_matplotlib

FIGURES = CONFIG_DIR / "figure"


def names() -> list[str]:
    """Returns the figures there are."""
    return sorted(path.stem for path in FIGURES.glob("*.yaml"))


def write_figures(wanted: Sequence[str], results_dir: str | Path) -> int:
    """Draws `<results_dir>/figures/<name>.svg` and `.png` for each wanted figure and returns the exit code.

    A figure without any record is not drawn, and said not to be.

    Raises:
        UserError: there is no such figure, or nothing at `results_dir`.
    """
    for name in wanted:
        if name not in names():
            raise UserError(f'there is no figure "{name}"{did_you_mean(name, names())}')
    import_matplotlib()  # only here, so that nothing else waits for it
    from lbt.report.figures.kinds import KINDS
    from lbt.report.figures.spec import Spec
    from lbt.report.kit.style import context, encode

    frame = load_or_refuse(results_dir)
    folder = Path(results_dir) / "figures"
    folder.mkdir(exist_ok=True)
    with context():
        for name in wanted or names():
            spec = Spec(**OmegaConf.to_container(OmegaConf.load(FIGURES / f"{name}.yaml")))
            figure = KINDS[spec.kind](spec, frame)
            if figure is None:
                print(f"{name}: not drawn, there is no record of it yet")
                continue
            for ending, content in encode(figure, spec.title, spec.shows, f"lbt plots {name}").items():
                replace_file(folder / f"{name}.{ending}", content)
            print(folder / f"{name}.png")
    overview.write(results_dir)
    return 0
