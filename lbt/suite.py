"""The suite that every optimizer of this package passes, run on a plug-in's: `python -m lbt.suite my_module`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lbt import optim, plugins
from lbt.config import groups
from lbt.errors import UserError

TESTED = "LBT_SUITE"  # modules whose optimizers the suite tests in place of the package's; empty: of all plug-ins
OPTIONS = "SUITE"  # a plug-in's table of the constructor arguments to test with: {"signum": [{}, {"momentum": 0.0}]}

_PACKAGE = Path(__file__).parent
# As the configuration: an installed wheel carries the file inside the package, a source tree beside it.
_SHIPPED, _SOURCE = _PACKAGE / "test_suite.py", _PACKAGE.parent / "tests" / "optim" / "test_suite.py"
_MARKERS = "cuda: needs a CUDA device\nconvention: torch's conventions, beyond what a training relies on"


def names() -> list[str]:
    """Returns the optimizers that the suite is to test.

    Raises:
        UserError: a plug-in cannot be loaded, or none brings an optimizer.
    """
    if (modules := _modules()) is None:
        return optim.names()
    plugins.load(modules)
    if not (found := plugins.brought("OPTIMIZERS", modules)):
        raise UserError(f"{', '.join(modules) or 'plug-ins'}: no table OPTIMIZERS")
    return found


def options(extra: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Returns the constructor arguments to test with by optimizer, those of the plug-ins that are tested among them."""
    if (modules := _modules()) is None:
        return dict(extra)
    tables = [getattr(sys.modules[name], OPTIONS, {}) for name in plugins.names() if not modules or name in modules]
    return {name: several for table in tables for name, several in table.items()}


def of_plugins() -> bool:
    """Says whether plug-ins are tested, which may lack arguments that all optimizers of the package have."""
    return _modules() is not None


def _modules() -> list[str] | None:
    given = os.environ.get(TESTED)
    return None if given is None else [name for name in given.split(",") if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite; returns pytest's exit code, or 2 for a mistake."""
    parser = argparse.ArgumentParser("python -m lbt.suite", description=__doc__, epilog="Others are pytest's options.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="plug-ins; default: listed and installed ones")
    parser.add_argument("--config-dir", metavar="DIR", help="your folder of configuration, which may hold them")
    parser.add_argument("--all", action="store_true", help="also torch's conventions, on which no training relies")
    given, others = parser.parse_known_args(arguments)
    os.environ[TESTED] = ",".join(given.modules)
    try:
        with groups.using(given.config_dir):
            return _run(names(), [*([] if given.all else ["-m", "not convention"]), *others])
    except UserError as error:
        print(f"lbt: {error}", file=sys.stderr)
        return 2


def _run(tested: Sequence[str], words: Sequence[str]) -> int:
    """Runs the suite's file in pytest."""
    try:
        import pytest
    except ImportError:
        raise UserError("the suite runs in pytest, which is not here: pip install pytest") from None
    print(f"optimizers: {', '.join(tested)}", flush=True)
    file = _SHIPPED if _SHIPPED.exists() else _SOURCE
    plain = ["-q", "--tb=short", "-p", "no:cacheprovider", "-o", "addopts=", "-o", f"markers={_MARKERS}"]
    return int(pytest.main([str(file), f"--rootdir={file.parent}", *plain, *words]))


if __name__ == "__main__":
    sys.exit(main())
