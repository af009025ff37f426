"""Kills a random process of a run on two devices again and again; the same command goes on, and ends bit-equal.

    python scripts/try_kills.py --kills 20

Of the launcher and the two processes one is killed (SIGKILL) at a random moment of the training. Printed is what the
command said, and after how many seconds the others had ended. The finished record is compared with that of a run
nobody killed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    "data=synthetic", "data.size=512", "data.test_size=64", "data.resolution=32", "batch=128", "epochs=40",
    "schedule=constant", "optimizer=lars", "model.norm=batch", "precision=fp32", "device=cpu", "devices=2",
]  # fmt: skip
MADE_ANEW = ("wall_", "started", "sha256")  # what differs between two records of one run


def start(results: Path) -> subprocess.Popen:
    """Starts the run, the leader of a process group."""
    command = [sys.executable, "-m", "lbt", "train", *WORDS, f"results_dir={results}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def processes(launcher: int) -> list[int]:
    """Returns the processes that train, children of the launcher's that have a thread of torch's gloo."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and "spawn_main" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def begun(results: Path, since: float) -> bool:
    """Says whether the run has opened its record anew."""
    return any(path.stat().st_mtime > since for path in results.glob("runs/*/*.jsonl"))


def kill_once(results: Path, number: int, longest: float) -> bool:
    """Starts the run and kills one of its processes; returns whether it had ended before that."""
    run, since = start(results), time.time()
    while run.poll() is None and not begun(results, since):
        time.sleep(0.05)
    time.sleep(random.random() * longest)
    kids = processes(run.pid)
    if run.poll() is not None or len(kids) < 2:
        run.communicate()
        return run.returncode == 0
    who = random.randrange(3)
    os.kill([run.pid, *kids][who], signal.SIGKILL)
    started = time.time()
    said = run.communicate()[1].strip()
    while any(Path(f"/proc/{kid}").exists() for kid in kids):
        time.sleep(0.05)
    name = ("the launcher", "process 0", "process 1")[who]
    print(f"{number}: killed {name}: exit code {run.returncode}, all gone after {time.time() - started:.1f} s; {said}")
    return False


def content(results: Path) -> list:
    """Returns a record but for times and hashes."""
    [path] = results.glob("runs/*/*.jsonl")
    return [_kept(json.loads(line)) for line in path.read_text().splitlines()]


def _kept(value: object) -> object:
    if isinstance(value, dict):
        return {key: _kept(one) for key, one in value.items() if not key.startswith(MADE_ANEW)}
    return value


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds after the run's beginning")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder, "killed"), Path(folder, "whole")
        for number in range(1, options.kills + 1):
            if kill_once(killed, number, options.longest):
                print(f"the run was done before kill {number}: a shorter --longest, or fewer kills")
                break
        for results in (killed, whole):
            print(start(results).communicate()[0].strip().splitlines()[-2:])
        equal = content(killed) == content(whole)
    print("bit-equal" if equal else "NOT EQUAL")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
