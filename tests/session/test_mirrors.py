"""The copy in Weights & Biases, by the real package, offline."""

import json
import os
import struct
import subprocess
import sys

import pytest
from support import run_tiny, script

from lbt import records
from lbt.errors import UserError


def test_wandb_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'lbt\[wandb\]'"):
        run_tiny(tmp_path / "results", "wandb.mode=offline")
    assert not (tmp_path / "results").exists()


def mirrored(path):
    """What an offline run of Weights & Biases holds: its id, the epochs' figures and the summary.

    The file is a log of protocol buffers in LevelDB's format: blocks of 32 KiB, each part with a head of 7 bytes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    def values(items):
        return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}

    data, at, whole = path.read_bytes(), 7, b""
    name, epochs, summary = None, [], {}
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            record, whole = Record.FromString(whole), b""
            name = record.run.run_id or name
            summary |= values(record.summary.update)
            if record.history.item:
                epochs.append(values(record.history.item))
    return name, epochs, summary


def test_wandb_mirrors_each_run_by_itself(tmp_path):
    pytest.importorskip("wandb")
    start = script("""
from lbt.train.probes import PROBES
from support import run_tiny

class LastStep:
    obstacle = None
    def __init__(self, *_): self.steps = []
    def due(self, step): return True
    def measure(self, update): self.steps.append(update.progress.step)
    def read(self): return {"last": self.steps[-1], "all": list(self.steps)}

PROBES["steps"] = LastStep
for seed in (0, 1):
    run_tiny(sys.argv[1], "wandb.mode=offline", f"seed={seed}", "probes=[steps]", "layer_norms=1")
""")
    subprocess.run([*start, str(tmp_path)], check=True, capture_output=True)
    copies = {}
    for path in (tmp_path / "work").glob("wandb/offline-run-*/*.wandb"):
        name, *copies[name] = mirrored(path)
    made = {record.run["id"]: record for record in map(records.read, records.paths(tmp_path))}
    assert copies.keys() == made.keys() and len(made) == 2
    for name, record in made.items():
        epochs, summary = copies[name]
        for line, copy in zip(record.epochs, epochs, strict=True):
            steps = line.pop("steps")
            assert line.pop("layer_norms")["steps"] == steps["all"][-3:]  # lists stay in the record
            assert {**copy, **line, "kind": None, "steps/last": steps["last"]} == {**copy, "kind": None}
            assert all(isinstance(value, int | float) for value in copy.values())
        assert summary["status"] == "done" and summary["steps"] == record.end["summary"]["steps"]
        assert record.run["config"]["wandb"]["mode"] == "offline"


def test_wandb_without_a_key_is_one_line(tmp_path):
    pytest.importorskip("wandb")
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    start = script("""
from support import TINY
from lbt.cli import main
sys.exit(main(["train", *TINY, "wandb.mode=online", f"results_dir={sys.argv[1]}"]))
""")
    options = {"env": elsewhere | {"HOME": str(tmp_path)}, "stdin": subprocess.DEVNULL, "capture_output": True}
    done = subprocess.run([*start, str(tmp_path / "results")], text=True, **options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lbt: wandb.mode=online: ")
    assert not (tmp_path / "results" / "runs").exists()
