"""Large-batch training: optimizers, sweeps, records and tables.

From Python (docs/python.md): `lbt.run("optimizer=tvlars", "batch=512")` executes a run, `lbt.runs("results")` and
`lbt.epochs("results")` give what was recorded as pandas tables, `lbt.load_model(run)` a trained model. Nothing that
these need is imported before it is asked for.
"""

import importlib

TYPE_CHECKING = False  # as type checkers understand it; typing alone takes longer to import than all of this
if TYPE_CHECKING:
    from lbt.errors import UserError
    from lbt.report.dataframes import epochs, runs
    from lbt.session.outcome import Outcome
    from lbt.sweep.from_python import run
    from lbt.weights import load_model

__all__ = ["Outcome", "UserError", "epochs", "load_model", "run", "runs"]

_HOMES = {
    "Outcome": "lbt.session.outcome",
    "UserError": "lbt.errors",
    "epochs": "lbt.report.dataframes",
    "load_model": "lbt.weights",
    "runs": "lbt.report.dataframes",
}


if not TYPE_CHECKING:  # to them a misspelt name is to be one

    def __getattr__(name: str) -> object:
        if name == "run":
            return importlib.import_module("lbt.run")  # a module that can be called, lbt.run.run being in it
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
