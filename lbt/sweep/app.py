"""Gives `lbt train` to Hydra: one run or a sweep, with every mistake told in one line."""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from lbt import sweep
from lbt.config import CONFIG_DIR, register_resolvers, resolve
from lbt.errors import UserError, did_you_mean
from lbt.session.console import ConsoleReporter, sweep_table
from lbt.session.interrupt import Interrupt


def train(arguments: Sequence[str]) -> int:
    """Runs `lbt train ...` and returns the exit code.

    Raises:
        UserError: a mistake in the command.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    os.environ.setdefault(sweep.STARTED, repr(time.time()))
    sweep.register()
    register_resolvers()
    for word in arguments:
        if word.startswith("~"):  # a default would take its place, of which the run's id knows nothing
            raise UserError(f"{word}: a setting cannot be taken away; set it to what means off: null, false or 0")
    sys.argv = ["lbt", *_without_verb(arguments)]
    sweep.outcomes.clear()
    sweep.errors.clear()
    main = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(job)
    with mistakes_in_one_line():
        main()
    if sweep.errors:
        raise sweep.errors[0]
    return _close(sweep.outcomes)


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turns what Hydra and OmegaConf say of a command's overrides into a `UserError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(one_line(error)) from error


def _without_verb(arguments: Sequence[str]) -> list[str]:
    if "train" in arguments[:1]:
        flags = [word for word in arguments[1:] if word in ("-m", "--multirun")]  # wherever they stand
        return flags[:1] + [word for word in arguments[1:] if word not in flags]
    # Tab completion calls the bare command and hands the words typed so far over in the environment.
    line = os.environ.get("COMP_LINE", "")
    bare = re.sub(r"^(\s*\S+)\s+train\b", r"\1", line)
    if bare != line:
        os.environ["COMP_LINE"] = bare
        os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", len(line))) - len(line) + len(bare))
    return list(arguments)


def job(composed: DictConfig) -> object:
    """Executes one configuration; the task function Hydra calls, in this process or a launcher's.

    Returns:
        The run's outcome, or the `UserError` that kept it from starting.
    """
    register_resolvers()
    interrupt = Interrupt()
    try:
        result = sweep.execute(resolve(composed), interrupt, ConsoleReporter())
    except UserError as error:
        sweep.errors.append(error)
        return error
    if result.status == "interrupted":
        try:
            interrupt.hand_on()
        except Exception as error:  # the launcher does not requeue the job
            print(f"lbt: {one_line(error)}", file=sys.stderr)
        else:
            raise SystemExit(interrupt.exit_code)  # a sweep stops, too
    sweep.outcomes.append(result)
    return result


def _close(outcomes: Sequence) -> int:
    if len(outcomes) > 1:
        Console().print(sweep_table(outcomes))
    return 1 if any(outcome.status in ("failed", "oom", "interrupted") for outcome in outcomes) else 0


def one_line(error: Exception) -> str:
    """Returns a Hydra or OmegaConf error as one line that names the mistake and the nearest right spelling."""
    text = str(error)
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown[1].split("@")[0]
        if key == "experiment":
            return "experiment: add an experiment with a plus sign, +experiment=<name>"
        if key.startswith("optimizer.base."):
            return f"{key}: not an argument of what is inside, which optimizer@optimizer.base=<optimizer> chooses"
        return f"{key}: no such setting{did_you_mean(key, _known_keys(key))}"
    if missing := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, choice = missing[1], missing[2]
        return f'{group}={choice}: there is no {group} "{choice}"{did_you_mean(choice, choices(group))}'
    if ambiguous := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{ambiguous[1]}: several values are a sweep, lbt train -m ...; one value with a comma needs quotes"
    return " ".join(text.split("\n")[0].split())


def choices(group: str) -> list[str]:
    """Returns the choices of a configuration group."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def _known_keys(key: str) -> list[str]:
    composed = sweep.compose([])
    keys = [found for found in _walk(OmegaConf.to_container(composed), "") if not found.startswith("hydra")]
    return keys + [path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name not in keys]


def _walk(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _walk(value, f"{prefix}{key}.")
