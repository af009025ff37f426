"""`keep=weights`: what is kept is what was scored, it is no part of the run, and hindering it does not end the run."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import TINY, StopAfter, figures, run_tiny, tiny_config

from lbt import build, records, weights
from lbt.cli import main
from lbt.data import normalise
from lbt.errors import UserError
from lbt.records import places
from lbt.run import run
from lbt.session.console import Reporter
from lbt.train.executor import Executor

TWINS = ["task=barlow_twins", "data.augment=barlow_twins", "task.projector=[6,4]", "task.probe.epochs=1"]
KINDS = {
    "plain": [],
    "ema": ["ema=0.8"],
    "schedule-free": ["optimizer=schedulefree_sgd"],
    "schedule-free, averaged": ["optimizer=schedulefree_adamw", "ema=0.8"],
    "split": ["micro_batch=5", "data.val=0.25"],
    "bf16": ["precision=bf16"],
    "twins": TWINS,
}


class Said(Reporter):
    def __init__(self):
        self.lines, self.before = [], []

    def say(self, text):
        self.lines.append(text)

    def not_executed(self, outcome):
        self.before.append(outcome)


def kept(folder, outcome):
    return load_file(places.weights_of(folder, outcome.id))


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_scored_last_is_kept_bit_for_bit(tmp_path, monkeypatch, kind):
    scored, evaluate = {}, Executor.evaluate

    def seen(self, sets, *, model=None, **options):
        state = (self.model if model is None else model).state_dict()
        scored.update({name: tensor.clone() for name, tensor in state.items()})
        return evaluate(self, sets, model=model, **options)

    monkeypatch.setattr(Executor, "evaluate", seen)
    outcome = run_tiny(tmp_path, "keep=weights", *KINDS[kind])
    assert outcome.status == "done"
    assert equal(scored, kept(tmp_path, outcome))


@pytest.mark.parametrize("kind", ["plain", "ema", "schedule-free"])
def test_the_loaded_model_gives_the_records_figures(tmp_path, kind):
    """By a few plain lines in the place of the task's own scoring."""
    outcome = run_tiny(tmp_path, "keep=weights", *KINDS[kind])
    model, images = weights.load_model(outcome.id[:9], tmp_path), build.images(outcome.config)
    assert not model.training
    with torch.no_grad():
        logits = model(normalise(images.test_images))
    last = records.read(outcome.path).epochs[-1]
    loss = torch.nn.functional.cross_entropy(logits, images.test_labels).item()
    assert loss == pytest.approx(last["test_loss"], rel=1e-5)
    assert 100 * (logits.argmax(1) == images.test_labels).double().mean() == pytest.approx(last["test_accuracy"])


def test_loading_leaves_the_generator_alone(once):
    before = torch.get_rng_state()
    weights.load_model(once)
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_and_its_record_are_the_same_with_and_without_it(tmp_path):
    with_it, without = run_tiny(tmp_path / "with", "keep=weights"), run_tiny(tmp_path / "without")
    assert with_it.id == without.id and figures(with_it.path) == figures(without.path)
    lines = [records.read(one.path).run for one in (with_it, without)]
    assert lines[0]["config"] == lines[1]["config"]
    assert not places.weights_folder(tmp_path / "without").exists()


def test_what_made_them_stands_beside_them(tmp_path):
    outcome = run_tiny(tmp_path, "keep=weights", "epochs=1")
    found, run_line = weights.read(places.weights_of(tmp_path, outcome.id)), records.read(outcome.path).run
    assert found.run == outcome.id and found.config == run_line["config"]
    assert found.metadata["data_fingerprint"] == run_line["provenance"]["data_fingerprint"]
    assert found.classes == build.images(outcome.config).classes
    assert found.metadata["lbt"] == run_line["provenance"]["lbt"]
    assert str(tmp_path) not in json.dumps(dict(found.metadata))


def test_a_resumed_run_keeps_what_an_uninterrupted_one_does(tmp_path):
    whole = run_tiny(tmp_path / "whole", "keep=weights", "optimizer=schedulefree_sgd")
    stopped = run_tiny(tmp_path / "part", "optimizer=schedulefree_sgd", interrupt=StopAfter(5))
    assert stopped.status == "interrupted" and not places.weights_folder(tmp_path / "part").exists()
    resumed = run_tiny(tmp_path / "part", "optimizer=schedulefree_sgd", "keep=weights")
    assert equal(kept(tmp_path / "part", resumed), kept(tmp_path / "whole", whole))


def test_what_was_done_before_without_it_is_not_executed_again_and_says_so(tmp_path, capsys):
    first = run_tiny(tmp_path)
    before = first.path.read_bytes()
    said = Said()
    again = run(tiny_config(tmp_path, "keep=weights"), reporter=said)
    assert again.recorded_before and again.unkept and said.before == [again]
    assert first.path.read_bytes() == before and not places.weights_folder(tmp_path).exists()
    words = ["train", *TINY, f"results_dir={tmp_path}", "keep=weights"]
    assert main(words) == 0
    assert "made without keep=weights: another results_dir keeps them" in capsys.readouterr().out
    assert main([*words, "-m", "seed=0,1"]) == 0
    assert "1 of them without keep=weights: another results_dir keeps them" in capsys.readouterr().out
    assert main([*words, "-m", "seed=1"]) == 0
    assert "keep" not in capsys.readouterr().out


def test_a_diverged_run_keeps_nothing(tmp_path):
    assert run_tiny(tmp_path, "keep=weights", "optimizer=sgd", "lr=1e30", "schedule=constant").status == "diverged"
    assert not places.weights_folder(tmp_path).exists()


def test_where_they_cannot_be_written_the_run_is_done_all_the_same(tmp_path, monkeypatch):
    places.weights_folder(tmp_path).touch()  # a file where the folder belongs
    said = Said()
    outcome = run(tiny_config(tmp_path, "keep=weights"), reporter=said)
    assert outcome.status == records.read(outcome.path).status == "done"
    (line,) = said.lines
    assert line.startswith("keep=weights: the weights were not kept: ") and "\n" not in line
    assert list(places.work_folder(tmp_path).iterdir()) == []


def test_a_disk_that_is_full_leaves_no_part_of_them(tmp_path, monkeypatch):
    from lbt import files

    def full(handle):
        raise OSError(28, "No space left on device")

    keep = weights.file.keep

    def keep_on_a_full_disk(*of):
        with monkeypatch.context() as patched:
            patched.setattr(files.os, "fsync", full)
            keep(*of)

    monkeypatch.setattr(weights, "keep", keep_on_a_full_disk)
    said = Said()
    outcome = run(tiny_config(tmp_path, "keep=weights"), reporter=said)
    assert records.read(outcome.path).status == "done" and "No space left on device" in said.lines[0]
    assert list(places.weights_folder(tmp_path).iterdir()) == []


def damage(path, kind):
    content = path.read_bytes()
    if kind == "cut off":
        path.write_bytes(content[:-5])
    elif kind == "a bit":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a header":
        path.write_bytes(content[:20] + b"}" + content[21:])
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "a pickle":
        torch.save({"weight": Loud()}, path)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The weights of a run of one epoch."""
    folder = tmp_path_factory.mktemp("once")
    return places.weights_of(folder, run_tiny(folder, "keep=weights", "epochs=1").id)


class Loud:
    """What unpickles it is told to speak."""

    def __reduce__(self):
        return print, ("a file's content was executed",)


@pytest.mark.parametrize("kind", ["cut off", "a bit", "empty", "a header", "a folder", "a pickle"])
def test_a_damaged_file_is_one_line_wherever_it_is_used(tmp_path, capfd, monkeypatch, once, kind):
    monkeypatch.chdir(tmp_path)
    path = places.weights_of("results", "abc")
    path.parent.mkdir(parents=True)
    path.write_bytes(once.read_bytes())
    weights.read(path)  # what was read is not believed for long
    damage(path, kind)
    commands = [["evaluate", "abc"], *([["train", *TINY, "init_from=abc"]] if kind == "a bit" else [])]
    for command in commands:
        assert main(command) == 2
        out, err = capfd.readouterr()
        assert path.name in err and err.count("\n") == 1 and out == "" and "LBT_DEBUG" not in err
    with pytest.raises(UserError):
        weights.load_model("abc")


def test_others_files_are_weights_to_begin_from_and_nothing_more(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file({"fc.weight": torch.zeros(2, 3)}, path)
    found = weights.read(path)
    assert found.run is None and found.tensors["fc.weight"].shape == (2, 3)
    with pytest.raises(UserError, match="says nothing of the run it is from"):
        weights.load_model(path)


def test_a_metadata_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "own.safetensors"
    for config in ("{", "[]", '{"model": {"name": "tiny"}}'):
        save_file({"a": torch.zeros(1)}, path, {"config": config, "classes": "[]", "id": "x"})
        with pytest.raises(UserError, match=r"own.safetensors: cannot be read|no dict|own"):
            weights.load_model(path)


def test_the_hash_is_of_the_tensors_alone():
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    same = {"a": torch.tensor(3), "b": tensors["b"].t().contiguous().t()}
    assert weights.file.digest(tensors) == weights.file.digest(same)
    others = [
        {**tensors, "a": torch.tensor(4)},
        {**tensors, "a": torch.tensor([3])},
        {**tensors, "b": tensors["b"].view(3, 2)},
        {**tensors, "b": tensors["b"].view(torch.int32)},
        {"b": tensors["b"], "c": tensors["a"]},
    ]
    assert len({weights.file.digest(one) for one in [tensors, *others]}) == 6
