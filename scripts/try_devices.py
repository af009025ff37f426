"""Trains every case of tests/devices on more processes than the suite has time for, against one: float64, gloo.

    python scripts/try_devices.py --devices 4
    python scripts/try_devices.py --devices 8 --workers 8 --cases onebit_adam slamb     # a process a worker

Printed is each case's largest difference from one process in weights, figures and scores, relative where a number is
above 1. A run of its own is begun by one process, goes on by all of them and is ended by one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "devices")]

from exact import config, free_port, numbers, work  # noqa: E402
from support import StopAfter  # noqa: E402
from test_devices import CASES, CONTROLS, difference, limit  # noqa: E402

from lbt.run import run  # noqa: E402


def trained(options: argparse.Namespace, folder: Path) -> tuple[dict, dict]:
    """Returns what one process and what several make of each case."""
    devices = options.devices
    wholes = {"run": config(folder / "run", epochs=9)}
    run(wholes["run"], interrupt=StopAfter(4))
    cases = {name: config(folder, **changes) for name, changes in chosen(options).items()}
    controls = [name for name in CONTROLS if name in cases]
    arguments = ({devices: [free_port(), free_port()]}, cases, controls, wholes, str(folder))
    torch.multiprocessing.start_processes(work, arguments, devices, start_method="spawn")
    alone: dict = {}
    for path in folder.glob("alone*.pt"):
        alone |= torch.load(path, weights_only=True)
    return alone, torch.load(folder / f"{devices}-0.pt", weights_only=True)


def chosen(options: argparse.Namespace) -> dict[str, dict]:
    """Returns the settings of the cases that the command line chooses."""
    cases = {name: case for name, case in CASES.items() if any(word in name for word in options.cases or [""])}
    if options.workers is None:  # as many workers as the devices can share out
        count = options.devices
        return {name: case for name, case in cases.items() if case.get("workers", count) % count == 0}
    return {name: {**case, "workers": options.workers} for name, case in cases.items() if "workers" in case}


def main() -> int:
    """Runs what the command line asks for; returns 1 where a case is not that of one process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--workers", type=int, help="only the cases of rules for workers, with so many; devices divide")
    parser.add_argument("--cases", nargs="+", help="only those whose name has one of these words")
    options, wrong = parser.parse_args(), 0
    devices = options.devices
    if not chosen(options):
        parser.error(f"no such case; there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone, shared = trained(options, folder)
        for case in chosen(options):
            found = difference(shared[case], alone[case])
            beyond = [key for key, value in found.items() if value > limit(case, key)]
            exact = max(value for key, value in found.items() if limit(case, key) <= 1e-9)
            print(f"{case:35} {exact:.1e}", *beyond)
            wrong += bool(beyond)
        for case in set(CONTROLS) & alone.keys():
            print(f"{'control, local ' + case:35} {max(difference(shared[f'local {case}'], alone[case]).values()):.1e}")
        ended, straight = run(config(folder / "run", epochs=9)), run(config(folder / "straight", epochs=9))
        pairs = zip(numbers(ended.path), numbers(straight.path), strict=True)
        apart = max(abs(one["train_loss"] / other["train_loss"] - 1) for one, other in pairs)
        print(
            f"begun by one, gone on with by {devices}, ended by one: {ended.status}, train losses differ by {apart:.1e}"
        )
    return 1 if wrong or ended.id != straight.id or apart > 1e-12 else 0


if __name__ == "__main__":
    sys.exit(main())
