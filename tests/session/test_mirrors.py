"""The copies of a record: in Weights & Biases by the real package, offline, and for TensorBoard by its own reader."""

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
from support import StopAfter, figures, run_tiny, script, tiny_config

from lbt import records
from lbt.errors import UserError
from lbt.session.mirrors import Mirrors, tensor_board


@pytest.mark.parametrize(
    ("switch", "package", "said"),
    [
        ("wandb.mode=offline", "wandb", "wandb is not installed; pip install wandb"),
        ("mirror=[tensorboard]", "tensorboard", r"mirror=tensorboard: .*pip install 'lbt\[tensorboard\]'"),
    ],
)
def test_what_is_not_installed_is_one_line(tmp_path, monkeypatch, switch, package, said):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UserError, match=said):
        run_tiny(tmp_path / "results", switch)
    assert not (tmp_path / "results").exists()


def test_a_mirror_is_no_part_of_a_run_and_of_a_record_only_where_it_is_on(tmp_path):
    plain, copied = run_tiny(tmp_path / "plain"), run_tiny(tmp_path / "copied", "mirror=tensorboard")
    assert copied.id == plain.id and figures(copied.path) == figures(plain.path)
    assert "mirror" not in records.read(plain.path).run["config"]
    assert records.read(copied.path).run["config"]["mirror"] == ["tensorboard"]
    assert not (tmp_path / "plain" / "tensorboard").exists()


@pytest.mark.parametrize(
    ("words", "mirror", "mode"),
    [
        (["mirror=tensorboard"], ["tensorboard"], "disabled"),
        (["mirror=null"], [], "disabled"),
        (["mirror=wandb"], [], "online"),
        (["mirror=[wandb,tensorboard,wandb]"], ["tensorboard"], "online"),
        (["mirror=wandb", "wandb.mode=offline"], [], "offline"),
        (["wandb.mode=offline"], [], "offline"),
    ],
)
def test_a_mirror_is_asked_for_in_one_way_alone(tmp_path, words, mirror, mode):
    config = tiny_config(tmp_path, *words)
    assert (config.mirror, config.wandb.mode) == (mirror, mode)


def test_an_unknown_mirror_is_one_line(tmp_path):
    with pytest.raises(UserError, match='tensorbord: no such choice; did you mean "tensorboard"'):
        tiny_config(tmp_path, "mirror=tensorbord")


def copied(folder, outcome):
    """What TensorBoard shows of a run: the points of each scalar, and its texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder / "tensorboard" / outcome.config.experiment / outcome.id))
    shown.Reload()
    scalars = {name: [(one.step, one.value) for one in shown.Scalars(name)] for name in shown.Tags()["scalars"]}
    texts = {name: [one.tensor_proto.string_val[0].decode() for one in shown.Tensors(name)]
             for name in shown.Tags()["tensors"]}  # fmt: skip
    return scalars, texts


def test_tensorboard_shows_a_resumed_runs_epochs_once(tmp_path):
    """Also those that were copied after the checkpoint was written from which a killed run goes on."""
    pytest.importorskip("tensorboard")
    run_tiny(tmp_path, "mirror=tensorboard", interrupt=StopAfter(4))
    left = shutil.copytree(tmp_path / "work", tmp_path / "left")
    assert run_tiny(tmp_path, "mirror=tensorboard", interrupt=StopAfter(7)).summary["epochs"] == 3
    shutil.copytree(left, tmp_path / "work", dirs_exist_ok=True)  # as if killed instead
    outcome = run_tiny(tmp_path, "mirror=tensorboard")
    scalars, texts = copied(tmp_path, outcome)
    for name in ("train_loss", "test_accuracy", "effective_lr"):
        expected = [(line["epoch"], pytest.approx(line[name], rel=1e-6)) for line in outcome.epochs]
        assert scalars[name] == expected and len(expected) == 4
    assert texts["status/text_summary"][-1] == "done"
    (settings,) = texts["configuration/text_summary"]
    assert "name: lars" in settings


def test_a_mirror_that_cannot_be_opened_is_one_line_and_the_run_goes_on(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder belongs")
    assert run_tiny(tmp_path, "mirror=tensorboard").status == "done"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lbt: mirror=tensorboard: ") and line.endswith("the run goes on without it")


def test_a_mirror_that_fails_on_the_way_is_given_up_once(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    epoch = tensor_board.TensorBoard.epoch

    def full(self, line):
        if line["epoch"] > 1:
            raise OSError(28, "No space left on device")
        epoch(self, line)

    monkeypatch.setattr(tensor_board.TensorBoard, "epoch", full)
    outcome = run_tiny(tmp_path, "mirror=tensorboard")
    assert outcome.status == "done" and len(outcome.epochs) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lbt: mirror=tensorboard: [Errno 28] No space left on device; the run goes on without it"
    assert [step for step, _ in copied(tmp_path, outcome)[0]["train_loss"]] == [1]


class Noting:
    """A mirror that remembers what it was told, and fails where it is to."""

    def __init__(self, fails=""):
        self.told, self.fails = [], fails

    def _note(self, what):
        self.told.append(what)
        if what == self.fails:
            raise ConnectionError("no network")

    def epoch(self, line):
        self._note(f"epoch {line['epoch']}")

    def end(self, status, summary):
        self._note(status)

    def close(self):
        self._note("close")


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("epoch 2", ["epoch 1", "epoch 2", "close"]),
        ("done", ["epoch 1", "epoch 2", "done", "close"]),
        ("close", ["epoch 1", "epoch 2", "done", "close"]),
    ],
)
def test_one_mirrors_failure_is_said_once_and_is_not_the_others(capsys, fails, told):
    one, other = Noting(fails), Noting()
    both = Mirrors({"one": one, "other": other})
    for epoch in (1, 2):
        both.epoch({"epoch": epoch})
    both.end("done", {})
    both.close()
    assert list(dict.fromkeys(one.told)) == told and other.told == ["epoch 1", "epoch 2", "done", "close"]
    assert capsys.readouterr().err == "lbt: mirror=one: no network; the run goes on without it\n"


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
