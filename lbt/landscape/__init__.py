"""`lbt landscape`: the loss between the weights of two runs, or around those of one; records nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from lbt import build, records, runtime
from lbt.config import Config
from lbt.config import network_of as named
from lbt.config.binding import pick
from lbt.data import ImageSet
from lbt.errors import UserError
from lbt.evaluate import refuse_foreign, scoring_config
from lbt.files import replace_file
from lbt.landscape.directions import between, filter_normalised, moved
from lbt.landscape.surface import BATCH_NORM, REESTIMATED, Surface
from lbt.report.kit import render
from lbt.report.kit.backend import import_matplotlib
from lbt.session.console import Screen
from lbt.weights import Weights, find, its_plugins, network_of, read

LINE, AROUND = (-0.5, 1.5), (-1.0, 1.0)  # of the way to the other run; of the filters' own lengths
POINTS, POINTS_OF_PLANE = 21, 11


@dataclass(frozen=True)
class Wanted:
    """How a landscape is drawn.

    Attributes:
        plane: over two random directions, in place of along each of `directions`.
        directions: random ones, of one run.
        points: on each axis; None: 21, of a plane 11.
        span: where an axis begins and ends; None: -0.5 to 1.5 between runs, -1 to 1 around one.
        images: of the training and of the test set at most, stratified draws.
        seed: of these draws and of the directions.
        batch_norm: `re-estimated` at each point, or `kept`.
    """

    plane: bool = False
    directions: int = 3
    points: int | None = None
    span: tuple[float, float] | None = None
    images: int = 1000
    seed: int = 0
    batch_norm: str = REESTIMATED


@dataclass
class Landscape:
    """What was found.

    Attributes:
        runs: ids of one or two.
        configs: their settled configurations.
        wanted: how it was asked for.
        rows: a point each: `direction`, `x`, `y` (of a plane), and the scores.
        batch_norm: what was done with it; None: the network has none.
        origin, fingerprint: of the data.
        counts: training and test images used, and of how many.
        foreign: the runs that were trained on other data.
    """

    runs: list[str]
    configs: list[Config]
    wanted: Wanted
    rows: list[dict[str, Any]]
    batch_norm: str | None
    origin: str
    fingerprint: str
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its files."""
        return "_".join(["landscape", *self.runs, *(["plane"] if self.wanted.plane else [])])

    def csv(self) -> str:
        """Returns the points as CSV, each with what it was computed on."""
        how = {f"{split}_images": used for split, (used, _) in self.counts.items()}
        how |= {"seed": self.wanted.seed, "batch_norm": self.batch_norm, "data": self.fingerprint}
        return render.csv([{"runs": " ".join(self.runs), **row, **how} for row in self.rows])


def show(words: Sequence[str], results_dir: str | Path, wanted: Wanted) -> int:
    """Computes a landscape, writes it as a table and a figure below `results_dir` and returns the exit code.

    Args:
        words: one or two runs (ids, beginnings of ids, files of weights) and settings of the data, `device=...` and
            `precision=...`, as `lbt evaluate` takes them.
        results_dir: where the runs' results lie.
        wanted: how to draw it.

    Raises:
        UserError: there are no such weights, they are of different networks, or the options do not fit each other.
    """
    runs = [word for word in words if "=" not in word or word.endswith(".safetensors")]
    overrides = [word for word in words if word not in runs]
    screen = Screen()

    def progress(points: list) -> Iterator[Any]:
        yield from track(points, "points", console=screen, transient=True, disable=not screen.is_terminal)

    found = measured(runs, results_dir, wanted, overrides, progress)
    import_matplotlib()
    from lbt.landscape.drawing import draw

    table, figures = Path(results_dir) / "tables" / f"{found.name}.csv", Path(results_dir) / "figures"
    for folder in (table.parent, figures):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(table, found.csv().encode())
    for ending, content in draw(found, f"lbt landscape {' '.join(found.runs)}").items():
        replace_file(figures / f"{found.name}.{ending}", content)
    for path in (table, figures / f"{found.name}.png"):
        print(path)
    return 0


def measured(
    runs: Sequence[str | Path],
    results_dir: str | Path = "results",
    wanted: Wanted | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[list], Any] = iter,
) -> Landscape:
    """Returns a landscape's points with their scores; arguments and errors as of `show`.

    Args:
        runs: one or two.
        results_dir: where their results lie.
        wanted: how to draw it; None: as by default.
        overrides: settings.
        progress: goes through the points.
    """
    wanted = wanted or Wanted()
    _check(runs, wanted)
    kept = [_kept(run, results_dir) for run in runs]
    configs = [runtime.settle(scoring_config(one, overrides)) for one in kept]
    with its_plugins(kept[0]):
        build.validate(configs[0])
    networks = [network_of(one) for one in kept]
    _refuse_unlike(kept, networks)
    images = build.images(configs[0])
    refuse_foreign(kept[0], configs[0], images)
    if images.classes != kept[0].classes:
        raise UserError(f"data={configs[0].data.name}: has other classes than these weights know")
    surface = Surface(
        networks[0], configs[0], images, count=wanted.images, seed=wanted.seed, batch_norm=wanted.batch_norm
    )
    points = list(_along(surface, networks, wanted) if len(runs) == 2 else _around(surface, wanted))
    rows = [{**place, **surface.at(weights())} for place, weights in progress(points)]
    return _landscape(kept, configs, wanted, rows, surface, images)


def _landscape(
    kept: Sequence[Weights],
    configs: list[Config],
    wanted: Wanted,
    rows: list[dict[str, Any]],
    surface: Surface,
    images: ImageSet,
) -> Landscape:
    if "test_loss" not in rows[0]:
        raise UserError(f"task={configs[0].task['name']}: its scores have no loss to draw")
    parts = {"train": surface.train, "test": surface.test}
    counts = {split: (len(part.labels), part.of) for split, part in parts.items()}
    names = [str(one.run) for one in kept]
    foreign = [str(one.run) for one in kept if one.metadata["data_fingerprint"] != images.fingerprint]
    origin = images.origin, images.fingerprint
    return Landscape(names, configs, wanted, rows, surface.batch_norm, *origin, counts, foreign)


def _check(runs: Sequence[str | Path], wanted: Wanted) -> None:
    if len(runs) not in (1, 2):
        raise UserError(f"lbt landscape: expected one or two runs, not {len(runs)}")
    if len(runs) == 2 and wanted.plane:
        raise UserError("--plane: is of one run's random directions; two runs have a line between them")
    low, high = wanted.span or AROUND
    if not low < high:
        raise UserError(f"--span {low:g} {high:g}: expected the lower end first")
    if wanted.points is not None and wanted.points < 2:
        raise UserError(f"--points {wanted.points}: expected two or more")
    for name in ("images", "directions"):
        if getattr(wanted, name) < 1:
            raise UserError(f"--{name} {getattr(wanted, name)}: expected one or more")
    pick("batch_norm", wanted.batch_norm, dict.fromkeys(BATCH_NORM))


def _kept(run: str | Path, results_dir: str | Path) -> Weights:
    """Returns a run's weights; of one that has kept none, the mistake says how they are kept."""
    try:
        return read(find(run, results_dir))
    except UserError as error:
        if any(path.stem.startswith(str(run)) for path in records.paths(results_dir)):
            raise
        raise UserError(f"{error}; lbt train ... keep=weights keeps a run's weights") from error


def _refuse_unlike(kept: Sequence[Weights], networks: Sequence[Any]) -> None:
    """Raises a `UserError` where there is no line between two networks."""
    first, *others = kept
    for other in others:
        one, two = ({name: tuple(tensor.shape) for name, tensor in of.tensors.items()} for of in (first, other))
        if one != two:
            models = [named(of.config["model"]) for of in (first, other)]
            name = next(name for name in [*one, *two] if one.get(name) != two.get(name))
            sizes = " against ".join("x".join(map(str, of[name])) if name in of else "none" for of in (one, two))
            kinds = f"{models[1]} and {models[0]}: {name} {sizes}"
            raise UserError(f"{other.run}: another network than {first.run}'s, {kinds}")
        if first.classes != other.classes:
            raise UserError(f"{other.run}: knows other classes than {first.run}")
        if first.metadata.get("vocabulary") != other.metadata.get("vocabulary"):
            raise UserError(f"{other.run}: its tokens are of another vocabulary than {first.run}'s")


def _axis(span: tuple[float, float], count: int, ends: Sequence[float]) -> list[float]:
    """Returns the places on an axis, those of the runs among them."""
    low, high = span
    places = {round(float(place), 10) for place in np.linspace(low, high, count)}
    return sorted(places | {end for end in ends if low <= end <= high})


Point = tuple[dict[str, Any], Callable[[], dict]]


def _along(surface: Surface, networks: Sequence[Any], wanted: Wanted) -> Iterator[Point]:
    device = next(surface.network.parameters()).device
    first, second = surface.weights, {name: one.to(device) for name, one in networks[1].state_dict().items()}
    for x in _axis(wanted.span or LINE, wanted.points or POINTS, (0.0, 1.0)):
        yield {"direction": "line", "x": x}, lambda x=x: between(first, second, x)


def _around(surface: Surface, wanted: Wanted) -> Iterator[Point]:
    start, span = surface.weights, wanted.span or AROUND
    if wanted.plane:
        one, two = (filter_normalised(surface.network, seed) for seed in (2 * wanted.seed, 2 * wanted.seed + 1))
        axis = _axis(span, wanted.points or POINTS_OF_PLANE, (0.0,))
        for y in axis:
            for x in axis:
                place = {"direction": "plane", "x": x, "y": y}
                yield place, lambda x=x, y=y: moved(start, (x, one), (y, two))
        return
    for number in range(wanted.directions):
        along = filter_normalised(surface.network, wanted.directions * wanted.seed + number)
        for x in _axis(span, wanted.points or POINTS, (0.0,)):
            yield {"direction": number + 1, "x": x}, lambda x=x, along=along: moved(start, (x, along))
