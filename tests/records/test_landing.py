"""A finished run's record lies in the folder of the experiment it was asked for, wherever it was begun."""

from dataclasses import replace

import pytest
from support import StopAfter, tiny_config

from lbt import records
from lbt.records import index
from lbt.report.frame import load, select
from lbt.run import finished, run


def execute(results_dir, experiment, **options):
    return run(replace(tiny_config(results_dir), experiment=experiment), **options)


def shown(results_dir, experiment):
    return list(select(load(results_dir).runs, {"experiment": experiment})["status"])


@pytest.mark.parametrize("first", ["one", "adhoc"])
def test_a_run_interrupted_under_another_name_lands_where_it_was_finished_for(tmp_path, first):
    assert execute(tmp_path, first, interrupt=StopAfter(2)).status == "interrupted"
    assert execute(tmp_path, "two").status == "done"
    assert shown(tmp_path, "two") == ["done"]


@pytest.mark.parametrize("by_sweep", [True, False])
def test_a_finished_record_replaces_the_one_that_was_broken_off(tmp_path, by_sweep):
    name = execute(tmp_path, "two", interrupt=StopAfter(2)).id
    left = records.path_of(tmp_path, "two", name).read_bytes()
    done = execute(tmp_path, "two").path
    elsewhere = records.path_of(tmp_path, "one", name)
    elsewhere.parent.mkdir()
    done.rename(elsewhere)
    done.write_bytes(left)  # as unpacked from another machine
    if by_sweep:
        assert finished(replace(tiny_config(tmp_path), experiment="two"), index.by_key(tmp_path)).status == "done"
    else:
        assert execute(tmp_path, "two").recorded_before
    assert done.read_bytes() == elsewhere.read_bytes()
