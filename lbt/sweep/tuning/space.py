"""Search spaces: ranges of settings, and the quasi-random points drawn from them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from lbt.config import groups
from lbt.errors import UserError, did_you_mean

DIGITS = 4  # significant digits of a drawn number: the same text, and so the same run id, on every machine
KINDS = ("log", "linear", "choice")
OWN = "*"  # in the name of a space: the optimizer's
TRANSFORMS = ("one_minus", "epochs")


@dataclass(frozen=True)
class Axis:
    """One dimension of a space.

    Attributes:
        key: the setting it sets, `optimizer.betas[1]` for an element of a list; of a choice with several settings, any
            name.
        kind: "log" (uniform in the logarithm), "linear" or "choice".
        bounds: lower and upper bound of a range.
        options: what a choice chooses from; a mapping sets several settings at once.
        transform: "one_minus" (the setting is one minus what is drawn, as for a momentum), "epochs" (what is drawn is a
            share of the training, the setting counts epochs) or None.
    """

    key: str
    kind: str
    bounds: tuple[float, float] = (0.0, 1.0)
    options: tuple[Any, ...] = ()
    transform: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Settings this axis sets."""
        if self.options and isinstance(self.options[0], Mapping):
            return tuple(dict.fromkeys(key for option in self.options for key in option))
        return (self.key,)

    def draw(self, u: float, epochs: int) -> dict[str, Any]:
        """Returns the settings at the coordinate `u` in [0, 1): numbers as exact `Decimal`s, choices as they stand."""
        if self.kind == "choice":
            option = self.options[min(int(u * len(self.options)), len(self.options) - 1)]
            return dict(option) if isinstance(option, Mapping) else {self.key: option}
        low, high = self.bounds
        drawn = low * (high / low) ** u if self.kind == "log" else low + (high - low) * u
        value = Decimal(f"{drawn:.{DIGITS}g}")
        if self.transform == "one_minus":
            value = 1 - value
        return {self.key: value * epochs if self.transform == "epochs" else value}

    def position(self, value: float, epochs: int) -> float | None:
        """Returns the coordinate, 0 to 1, of a setting's value: the inverse of `draw`; None for a choice."""
        if self.kind == "choice":
            return None
        drawn = 1 - value if self.transform == "one_minus" else value / epochs if self.transform == "epochs" else value
        low, high = self.bounds
        if self.kind == "log":
            return math.log(drawn / low) / math.log(high / low) if drawn > 0 else 0.0
        return (drawn - low) / (high - low)


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: of its file.
        fixed: settings every trial has.
        axes: its dimensions, in the file's order.
    """

    name: str
    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...]

    @property
    def keys(self) -> list[str]:
        """Every setting a trial has from the space; of a list's elements the list."""
        found = [*self.fixed, *(key.split("[")[0] for axis in self.axes for key in axis.keys)]
        return list(dict.fromkeys(found))

    def trial(self, point: Sequence[float], epochs: int) -> dict[str, Any]:
        """Returns the settings at a point of the unit cube, the elements of a list joined to one setting."""
        settings, elements = dict(self.fixed), {}
        for axis, u in zip(self.axes, point, strict=True):
            for key, value in axis.draw(float(u), epochs).items():
                base, index = element(key)
                if index is None:
                    settings[base] = value
                else:
                    elements.setdefault(base, {})[index] = value
        return settings | {base: [known[index] for index in sorted(known)] for base, known in elements.items()}


def element(key: str) -> tuple[str, int | None]:
    """Returns a setting, and of `setting[i]` which element of it is meant."""
    base, _, index = key.partition("[")
    return base, int(index[:-1]) if re.fullmatch(r"\d+\]", index) else None


def points(dimensions: int, count: int, seed: int) -> np.ndarray:
    """Returns the first `count` points, float64 [count, dimensions], of a scrambled Sobol sequence.

    A longer sequence begins with a shorter one of the same seed, so that a study can be extended.

    Raises:
        UserError: a count below 1, or a seed below 0.
    """
    if seed < 0:
        raise UserError(f"space_seed={seed}: expected 0 or more")
    if count < 1:
        raise UserError(f"n_trials={count}: expected 1 or more")
    from scipy.stats import qmc  # half a second that only a tuning sweep pays

    sampler = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return sampler.random_base2(math.ceil(math.log2(count)))[:count]  # whole powers of two: scipy warns of others


def override(key: str, value: Any) -> str:
    """Returns a setting as an override of the command line."""
    return f"{key}={text(value)}"


def text(value: Any) -> str:
    """Returns a value as Hydra's grammar has it; numbers without an exponent or a sign that depends on the machine."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list | tuple):
        return f"[{','.join(text(item) for item in value)}]"
    return str(value)


def names() -> list[str]:
    """Returns the spaces there are."""
    return groups.choices("space")


def of(optimizer: str, name: str | None = None) -> Space:
    """Returns an optimizer's space; raises as `read` does.

    Args:
        optimizer: its name.
        name: of the space, with the optimizer's in place of `OWN`; None: that alone.
    """
    return read((name or OWN).replace(OWN, optimizer))


def read(name: str) -> Space:
    """Returns the space `configs/space/<name>.yaml`.

    Raises:
        UserError: no such space, an unknown key, or a range without extent; one line that names it.
    """
    try:
        groups.path_of("space", name)
    except UserError as error:
        raise UserError(f"space={name}: {error}") from None
    return parse(name, groups.load("space", name))


def parse(name: str, content: Any) -> Space:
    """Returns the space a file's content describes; raises as `read` does."""
    where = f"space {name}"
    _known(content, ("fixed", "axes"), where)
    axes = content.get("axes") or {}
    if not axes:
        raise UserError(f"{where}: no axes; it needs at least one setting to vary")
    parsed = tuple(_axis(key, spec, f"{where}, {key}") for key, spec in axes.items())
    fixed = content.get("fixed") or {}
    keys = [*fixed, *(key for axis in parsed for key in axis.keys)]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UserError(f"{where}: {twice[0]} is set twice")
    _whole_lists(keys, where)
    return Space(name, fixed, parsed)


def _whole_lists(keys: Sequence[str], where: str) -> None:
    """Refuses elements of a list without the others: those that are left out would have no value."""
    elements: dict[str, list[int]] = {}
    for key in keys:
        base, index = element(key)
        if index is None and base != key:
            raise UserError(f"{where}: {key} is no setting; an element of a list is {base}[0]")
        if index is not None:
            elements.setdefault(base, []).append(index)
    for base, known in elements.items():
        if base in keys or sorted(known) != list(range(len(known))):
            raise UserError(f"{where}: {base}[{known[0]}]: all elements of a list are axes, from {base}[0] on, or none")


def _axis(key: str, spec: Any, where: str) -> Axis:
    _known(spec, (*KINDS, *TRANSFORMS), where)
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) != 1:
        raise UserError(f"{where}: expected exactly one of {', '.join(KINDS)}")
    transforms = [name for name in TRANSFORMS if spec.get(name)]
    kind, given = kinds[0], spec[kinds[0]]
    if len(transforms) > 1 or (kind == "choice" and transforms):
        raise UserError(f"{where}: {' and '.join(transforms)} cannot be combined with {kind}")
    transform = transforms[0] if transforms else None
    if kind == "choice":
        if not isinstance(given, list) or not given:
            raise UserError(f"{where}: choice needs a list of options")
        if len({isinstance(option, Mapping) for option in given}) > 1:
            raise UserError(f"{where}: options are either all values or all mappings of settings")
        return Axis(key, kind, options=tuple(given))
    return Axis(key, kind, bounds=_bounds(given, kind, transform, where), transform=transform)


def _bounds(given: Any, kind: str, transform: str | None, where: str) -> tuple[float, float]:
    numbers = isinstance(given, list) and len(given) == 2
    numbers = numbers and all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
    if not numbers or not all(math.isfinite(x) for x in given):
        raise UserError(f"{where}: {kind} needs two numbers, [low, high], not {given}")
    low, high = map(float, given)
    if not low < high:
        raise UserError(f"{where}: [{low:g}, {high:g}] is reversed or empty; the lower bound comes first")
    if kind == "log" and low <= 0:
        raise UserError(f"{where}: a log range needs positive bounds, not {low:g}")
    if transform and not 0 <= low < high <= 1:
        raise UserError(f"{where}: {transform} needs bounds of 0 to 1, not [{low:g}, {high:g}]")
    return low, high


def _known(content: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected a mapping of {', '.join(known)}")
    for key in content:
        if key not in known:
            raise UserError(f'{where}: there is no "{key}"{did_you_mean(key, known)}')
