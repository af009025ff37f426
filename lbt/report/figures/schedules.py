"""Learning rates and TVLARS's phi over training, computed by the code that trains, without a run."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lbt.report.figures.spec import Spec
from lbt.report.frame import Frame
from lbt.report.kit.style import along, finish, line_style, panels
from lbt.schedules import bert_polynomial, warmup_cosine, warmup_polynomial

IMAGES = 50_000  # of CIFAR-10's training set
BASE_BATCH = 256


def draw_rates(spec: Spec, frame: Frame) -> Figure:
    """Draws the rate as a share of the target over the epochs: warm-up and cosine, and phi under both protocols."""
    from lbt.optim.tvlars import phi  # torch takes seconds to import

    wanted = spec.options
    figure, grid = panels(1, len(wanted["batches"]), width=3.0, height=2.6)
    for axes, batch in zip(grid[0], wanted["batches"], strict=True):
        steps = math.ceil(IMAGES / batch)
        total = steps * wanted["epochs"]
        time = np.arange(total)
        factor = warmup_cosine(total, steps_per_epoch=steps, warmup=wanted["warmup"], end=wanted["end"])
        lines = [[factor(step) for step in time]]
        lines += [
            [phi(float(step), lam=wanted["lam"], **form) for step in time]
            for form in _protocols(wanted, batch, steps).values()
        ]
        for index, line in enumerate(lines):
            axes.plot((time + 1) / steps, line, **along(index, total, len(lines)))
        axes.set(title=f"batch {batch:,} ({steps} updates an epoch)", xlabel="epoch")
    grid[0][0].set_ylabel("learning rate / target rate")
    names = [
        f"warm-up ({wanted['warmup']} epochs), then cosine",
        f"TVLARS, paper protocol (lambda {wanted['lam']:g})",
        f"TVLARS, released protocol (lambda {wanted['lam']:g}; adapted layers only)",
    ]
    handles = [Line2D([], [], label=name, **line_style(index)) for index, name in enumerate(names)]
    return finish(figure, spec.title, [_computed(wanted)], handles, columns=2)


def draw_phi(spec: Spec, frame: Frame) -> Figure:
    """Draws phi_t over the epochs for several lambdas: a panel for each batch and protocol."""
    from lbt.optim.tvlars import phi

    wanted = spec.options
    lams = wanted["lams"]
    figure, grid = panels(2, len(wanted["batches"]), width=3.4, height=2.3)
    for column, batch in enumerate(wanted["batches"]):
        steps = math.ceil(IMAGES / batch)
        total = steps * wanted["epochs"]
        time = np.arange(total)
        for row, (name, form) in zip(grid, _protocols(wanted, batch, steps).items(), strict=True):
            axes = row[column]
            for index, lam in enumerate(lams):
                values = [phi(float(step), lam=lam, **form) for step in time]
                axes.plot((time + 1) / steps, values, **along(index, total, len(lams)))
            axes.set(title=f"{name} protocol, batch {batch:,}")
        grid[-1][column].set_xlabel("epoch")
    for row, name in zip(
        grid, (r"$\phi_t$ (alpha 1, delay 10 epochs)", r"$\phi_t$ (alpha 0.1, no delay)"), strict=True
    ):
        row[0].set_ylabel(name)
    handles = [Line2D([], [], label=f"lambda {lam:g}", **line_style(index)) for index, lam in enumerate(lams)]
    return finish(figure, spec.title, [_computed(wanted)], handles, columns=3)


def draw_phases(spec: Spec, frame: Frame) -> Figure:
    """Draws the rate over the updates as the public BERT code has it, over the intended one: a panel for each recipe.

    `options.recipes` maps a recipe's name to its phases, one after the other: `updates`, `warmup` (updates) and `lr`.
    """
    forms = {
        "intended: the decay begins where the warm-up ends": warmup_polynomial,
        "public BERT code: the warm-up replaces the beginning of the decay": bert_polynomial,
    }
    recipes = spec.options["recipes"]
    figure, grid = panels(1, len(recipes), width=3.6, height=2.6)
    for axes, (name, phases) in zip(grid[0], recipes.items(), strict=True):
        total = sum(phase["updates"] for phase in phases)
        for index, form in enumerate(forms.values()):
            rates = []
            for phase in phases:
                factor = form(phase["updates"], steps_per_epoch=1, warmup=phase["warmup"], decay_power=1.0)
                rates += [phase["lr"] * factor(step) for step in range(phase["updates"])]
            axes.plot(range(1, total + 1), rates, **along(index, total, len(forms)))
        axes.set(title=name, xlabel="update")
        axes.xaxis.set_major_locator(MaxNLocator(5))
    grid[0][0].set_ylabel("learning rate")
    handles = [Line2D([], [], label=name, **line_style(index)) for index, name in enumerate(forms)]
    return finish(figure, spec.title, ["linear warm-up, linear decay; computed from the formulas, no run"], handles)


def _protocols(wanted: dict[str, Any], batch: int, steps: int) -> dict[str, dict[str, Any]]:
    """Returns what phi is computed with under each protocol."""
    floor = wanted["floor"] * batch / BASE_BATCH
    return {
        "paper": {"alpha": 1.0, "delay_steps": wanted["delay"] * steps, "floor": floor},
        "released": {"alpha": 0.1, "delay_steps": None, "floor": 0.0},
    }


def _computed(wanted: dict[str, Any]) -> str:
    return (
        f"{wanted['epochs']} epochs of CIFAR-10's {IMAGES:,} training images; computed from the formulas, no run (n=0)"
    )
