"""Records that are looked at while others write them."""

import pytest
from filelock import FileLock
from planted import plant
from support import TINY, configure

from lbt import records
from lbt.files import read_regular
from lbt.records import places, watched
from lbt.records.watched import QUIET_SECONDS, Watched


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self):
        """As `time.monotonic`."""
        return self.now


@pytest.fixture(scope="module")
def config():
    return configure(*TINY, "name=mine")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def looked(tmp_path, clock):
    return Watched(tmp_path, clock)


def only(looked):
    (found,), damaged = looked.look()
    assert damaged == []
    return found


def test_a_record_is_followed_line_by_line_and_half_lines_are_passed_over(tmp_path, config, looked):
    whole = plant(tmp_path / "elsewhere", config, [10.0, 20.0, 30.0, 40.0], status="done").read_bytes()
    path = records.path_of(tmp_path, "mine", records.read_final(tmp_path / "elsewhere", _id(whole)).run["id"])
    path.parent.mkdir(parents=True)
    seen = []
    for size in range(0, len(whole) + 1, 7):  # every place at which a writer may be
        path.write_bytes(whole[:size])
        found, damaged = looked.look()
        assert len(found) <= 1 and damaged == []
        seen += [(one.status, one.epochs) for one in found]
    path.write_bytes(whole)
    seen.append((only(looked).status, only(looked).epochs))
    assert list(dict.fromkeys(seen)) == [*(("running", epoch) for epoch in range(5)), ("done", 4)]


def _id(content):
    return records.parse(records.path_of("", "", "x"), content).run["id"]


def test_what_does_not_grow_any_more_and_nobody_holds_is_interrupted(tmp_path, config, looked, clock):
    path = plant(tmp_path, config, 20.0, status=None)
    assert only(looked).status == "running"
    clock.now += QUIET_SECONDS + 1
    assert only(looked).status == "interrupted"
    with path.open("ab") as file:
        file.write(records.to_line({"kind": "epoch", "epoch": 2, "step": 2}).encode())
    assert (only(looked).status, only(looked).epochs) == ("running", 2)


def test_what_a_process_holds_is_running_however_long_it_takes(tmp_path, config, looked, clock):
    path = plant(tmp_path, config, 20.0, status=None)
    only(looked)
    clock.now += 1e6
    lock = places.lock_of(tmp_path, path.stem)
    lock.parent.mkdir()
    with FileLock(lock):
        assert only(looked).status == "running"
    assert only(looked).status == "interrupted"


def test_slow_epochs_are_waited_for(tmp_path, config, looked, clock):
    plant(tmp_path, config, 20.0, status=None, lines=[{"wall_train_seconds": 500.0, "wall_eval_seconds": 100.0}])
    assert only(looked).seconds == 600.0
    clock.now += 1700.0
    assert only(looked).status == "running"
    clock.now += 200.0
    assert only(looked).status == "interrupted"


def test_files_come_and_go_and_are_replaced(tmp_path, config, looked):
    assert looked.look() == ([], [])  # no folder yet
    path = plant(tmp_path, config, 50.0)
    content = path.read_bytes()
    assert only(looked).status == "done"
    path.write_bytes(b"{")  # being written anew
    assert only(looked).status == "done"
    path.unlink()
    assert looked.look() == ([], [])
    path.write_bytes(b"{nothing}\n{}\n")
    assert looked.look() == ([], [])
    assert looked.look() == ([], [path])  # and stays so
    path.write_bytes(content)
    assert only(looked).status == "done"


def test_a_record_that_has_not_changed_is_not_read_again(tmp_path, config, looked, monkeypatch):
    read = []
    monkeypatch.setattr(watched, "read_regular", lambda path: read.append(path) or read_regular(path))
    path = plant(tmp_path, config, 50.0)
    for _ in range(3):
        only(looked)
    assert read == [path]


@pytest.mark.parametrize("settings", [{"epochs": "many"}, {"batch": 0}, {"optimizer": None}, {"lr": None}])
def test_what_is_no_run_is_damaged(tmp_path, config, looked, settings):
    path = plant(tmp_path, config, 50.0, status=None)
    run = records.read(path).run
    run["config"] |= settings
    run["config"] = {key: value for key, value in run["config"].items() if value is not None}
    path.write_text(records.to_line(run) + "\n")
    looked.look()
    assert looked.look() == ([], [path])


def test_what_cannot_be_opened_is_damaged_and_stops_nothing(tmp_path, config, looked):
    path = plant(tmp_path, config, [10.0] * 4)
    path.with_name("0000.jsonl").mkdir()  # before it, in order
    assert [len(found) for found in looked.look()] == [1, 0]
    assert [len(found) for found in looked.look()] == [1, 1]
