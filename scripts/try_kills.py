"""Kills a random process of a run on two devices again and again; the same command goes on, and ends bit-equal.

    python scripts/try_kills.py --kills 20

Of the launcher and the two processes one is killed (SIGKILL) at a random moment of the training, a small network's with
batch norm and a checkpoint every second. Printed is what the command said, and after how many seconds the others had
ended, which are to be at most 30. The finished record is compared with that of a run nobody killed.
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

PROGRAM = """
import sys

import lbt.train
from lbt.models import MODELS
from torch import nn

lbt.train.CHECKPOINT_SECONDS = 1.0


def small(classes, *, stem="", norm="", norm_groups=0, ghost_size: int | None = None, bn_momentum=0.1, bn_eps=1e-5,
          zero_init_residual=False, init: str | None = None):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    model.extend([nn.Conv2d(8, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU()])
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    model.add_module("fc", nn.Linear(16, classes))
    return model


MODELS["small"] = small
if __name__ == "__main__":
    from lbt.cli import main

    sys.exit(main(sys.argv[1:]))
"""
WORDS = [
    "data=synthetic", "data.size=512", "data.test_size=64", "data.resolution=8", "batch=128", "model.name=small",
    "schedule=warmup_cosine", "optimizer=lars", "precision=fp32", "device=cpu", "devices=2",
]  # fmt: skip
SOON = 30.0  # seconds after which no process may be left
MADE_ANEW = ("wall_", "started", "sha256", "commit", "dirty")  # what differs between two records of one run


def start(results: Path, epochs: int) -> subprocess.Popen:
    """Starts the run, the leader of a process group."""
    program = results.parent / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, "train", *WORDS, f"epochs={epochs}", f"results_dir={results}"]
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


def kill_once(run: subprocess.Popen, results: Path, number: int, longest: float) -> float | None:
    """Kills one of the run's processes; returns the seconds until all were gone, None where it had ended before."""
    since = time.time()
    while run.poll() is None and not begun(results, since):
        time.sleep(0.05)
    time.sleep(random.random() * longest)
    kids = processes(run.pid)
    if run.poll() is not None or len(kids) < 2:
        said = run.communicate()[1].strip()
        print(f"{number}: had ended, exit code {run.returncode}; {said}", flush=True)
        return None
    who = random.randrange(3)
    os.kill([run.pid, *kids][who], signal.SIGKILL)
    started = time.time()
    said = run.communicate()[1].strip()
    while any(Path(f"/proc/{kid}").exists() for kid in kids):
        time.sleep(0.05)
    seconds, name = time.time() - started, ("the launcher", "process 0", "process 1")[who]
    checkpoint = next(results.glob("work/*.pt"), None)
    told = f"exit code {run.returncode}, all gone after {seconds:.1f} s, {_updates(checkpoint)}"
    print(f"{number}: killed {name}: {told}; {said}", flush=True)
    return seconds


def _updates(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "no checkpoint"
    import torch

    return f"{torch.load(checkpoint, weights_only=True)['progress']['step']} updates kept"


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
    parser.add_argument("--longest", type=float, default=6.0, help="seconds after the run's beginning")
    parser.add_argument("--epochs", type=int, default=400, help="of four updates; enough to outlast the kills")
    options = parser.parse_args()
    random.seed(options.seed)
    latest, kills = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder, "killed"), Path(folder, "whole")
        for number in range(1, options.kills + 1):
            seconds = kill_once(start(killed, options.epochs), killed, number, options.longest)
            if seconds is None:
                break
            latest, kills = max(latest, seconds), number
        for results in (killed, whole):
            print(start(results, options.epochs).communicate()[0].strip().splitlines()[-2:], flush=True)
        left = [path.name for path in killed.glob("work/*") if path.is_file()]
        equal = content(killed) == content(whole)
        for one, other in zip(content(killed), content(whole), strict=False):
            for key in sorted(one.keys() | other.keys()):
                if one.get(key) != other.get(key):
                    print(f"{one.get('kind')} {one.get('epoch', '')} {key}: {one.get(key)} and {other.get(key)}")
    print(f"{kills} kills; all gone after {latest:.1f} s at the latest; left in work/: {left or 'nothing'}")
    print("bit-equal" if equal else "NOT EQUAL")
    return 0 if equal and latest <= SOON and kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
