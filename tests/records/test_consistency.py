"""A record that was edited, cut or patched together is named and left out."""

import json
import os

import pytest
from planted import make

from lbt.report.frame import load


def rewrite(path, edit, *, checksum=False):
    """Changes a record's lines; without a checksum, as the first records had none."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not checksum:
        del lines[-1]["sha256"]
    edit(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_record_without_checksum_is_read(tmp_path):
    rewrite(make(tmp_path, 90.0, "optimizer=lars"), lambda lines: None)
    assert len(load(tmp_path).runs) == 1


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda lines: lines[-1]["summary"].update(test_accuracy=99.0), "its end says test_accuracy 99.0"),
        (lambda lines: lines[-2].update(test_accuracy=99.0), "its last epoch 99.0"),
        (lambda lines: lines[-1]["summary"].pop("test_accuracy"), "does not say the last epoch's test_accuracy"),
        (lambda lines: lines[2].update(test_accuracy=101.0), "not between 0 and 100"),
        (lambda lines: lines[2].update(test_accuracy="90"), "test_accuracy is '90', not a number"),
        (lambda lines: lines[2].update(test_accuracy=True), "not a number"),
        (lambda lines: lines[2].update(test_accuracy=[1.0]), "not a number"),
        (lambda lines: lines[2].update(test_top5_accuracy=-1.0), "not between 0 and 100"),
        (lambda lines: lines[2].update(train_loss={}), "train_loss is '{}', not a number"),
        (lambda lines: lines[-1]["summary"].update(test_knn_accuracy=1e6), "its end: test_knn_accuracy is"),
        (lambda lines: (lines[-2].update(train_loss=0.1), lines[-1].update(status="diverged")), "it is diverged"),
        (lambda lines: lines[-2].update(train_loss=None), "it is done, and its last epoch's losses"),
        (lambda lines: lines[2].update(step=1), "not after step 1"),
        (lambda lines: lines.pop(-2), "its end counts 8 epochs, it holds 7"),
        (lambda lines: lines[0]["config"].update(batch=1024), "belong to the id"),
        (lambda lines: lines[0]["config"].update(seed=7), "belong to the id"),
        (lambda lines: lines[0]["provenance"].update(data_fingerprint="0" * 16), "belong to the id"),
        (lambda lines: lines[0].update(id="0" * 16), "the file has another name"),
        (lambda lines: lines[0].update(schema=2), "schema 1"),
        (lambda lines: lines[0]["config"].update(data=5), "AttributeError"),
        (lambda lines: lines[0]["provenance"].pop("torch"), "KeyError('torch')"),
        (lambda lines: lines[0]["provenance"].update(commit=5), "TypeError"),
    ],
)
def test_an_edited_record_is_named_and_left_out(tmp_path, edit, said):
    path = make(tmp_path, 90.0, "optimizer=lars")
    make(tmp_path, 80.0, "optimizer=lars", "seed=1")
    rewrite(path, edit)
    frame = load(tmp_path)
    assert len(frame.runs) == 1 and path.stem not in set(frame.runs["id"])
    (problem,) = frame.problems
    assert str(path) in problem and said in problem


def test_a_done_run_of_too_few_epochs_is_left_out(tmp_path):
    def shorten(lines):
        del lines[-2]
        lines[-1]["summary"].update(epochs=7, steps=7)

    rewrite(make(tmp_path, 90.0, "optimizer=lars"), shorten)
    assert "done after 7 of 8 epochs" in load(tmp_path).problems[0]


def test_the_checksum_finds_what_nothing_else_contradicts(tmp_path):
    path = make(tmp_path, 90.0, "optimizer=lars")
    rewrite(path, lambda lines: lines[3].update(test_accuracy=95.0), checksum=True)
    assert "edited" in load(tmp_path).problems[0]


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_file_among_records_is_named_and_waited_for_by_nobody(tmp_path, kind):
    good = make(tmp_path, 90.0, "optimizer=lars")
    odd = good.with_name(f"{'0' * 16}.jsonl")
    {"fifo": lambda: os.mkfifo(odd), "device": lambda: odd.symlink_to("/dev/zero"), "folder": odd.mkdir}[kind]()
    frame = load(tmp_path)
    assert len(frame.runs) == 1
    assert [problem for problem in frame.problems if str(odd) in problem and "not a file" in problem]


def test_a_record_that_was_cut_off_is_unfinished_or_named(tmp_path):
    path = make(tmp_path, 90.0, "optimizer=lars")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert list(load(tmp_path).runs["status"]) == ["unfinished"]
    path.write_bytes(whole[:40])
    assert load(tmp_path).runs.empty and str(path) in load(tmp_path).problems[0]
