import errno
import fcntl
import os
import threading

import pytest
from filelock import Timeout
from support import run_tiny, tiny_config

from lbt import records
from lbt.errors import UserError
from lbt.records import places
from lbt.run import run
from lbt.session.lock import held


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def without_flock(request, monkeypatch):
    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_run_is_executed_where_the_file_system_has_no_locks(tmp_path, without_flock):
    outcome = run_tiny(tmp_path)
    assert outcome.status == "done" and records.read(outcome.path).status == "done"
    assert not list(tmp_path.glob("work/*.taken"))  # which would stop the next one
    assert run_tiny(tmp_path).recorded_before


def test_a_second_process_is_told_there_what_to_do(tmp_path, without_flock):
    outcome = run_tiny(tmp_path)
    outcome.path.unlink()
    told = pytest.raises(UserError, match=f"{outcome.id}.taken: another process executes run")
    with held(tmp_path, outcome.id), told:
        run(tiny_config(tmp_path))
    assert not records.paths(tmp_path)
    assert run_tiny(tmp_path).status == "done"


def test_what_is_no_file_in_a_locks_place_is_named_and_not_waited_for(tmp_path):
    places.lock_of(tmp_path, "a").parent.mkdir(parents=True)
    os.mkfifo(places.lock_of(tmp_path, "a"))
    with pytest.raises(UserError, match="a named pipe, not a file"), held(tmp_path, "a"):
        pass


def test_the_systems_lock_is_held_by_one(tmp_path):
    with held(tmp_path, "a"), held(tmp_path, "b"), pytest.raises(Timeout), held(tmp_path, "a"):
        pass
    with held(tmp_path, "a"):
        assert not list(tmp_path.glob("work/*.taken"))


def test_a_look_at_the_lock_keeps_no_run_from_starting(tmp_path):
    places.lock_of(tmp_path, "a").parent.mkdir(parents=True)
    with open(places.lock_of(tmp_path, "a"), "w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        done = threading.Timer(0.1, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        done.start()
        with held(tmp_path, "a"):
            assert places.held(places.lock_of(tmp_path, "a"))
        done.join()
