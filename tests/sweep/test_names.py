"""A sweep's name is the folder of its records, and no part of what a run is."""

import pytest
from support import TINY, configure, run_tiny

from lbt import records
from lbt.cli import main
from lbt.identity import identity


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folders(results_dir):
    return sorted(f"{path.parent.name}/{path.stem}" for path in records.paths(results_dir))


def test_a_named_sweeps_records_lie_under_its_name_and_are_the_runs_they_are_without_it(tmp_path, capsys):
    alone = run_tiny("results", "seed=1", "optimizer=lars")
    assert main(["train", "-m", *TINY, "name=mine", "optimizer=lars", "seed=0,1"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 runs have been finished before" in said and "\nrun 2 of 2 (1 done; about " in said
    made = folders("results")
    assert len(made) == 3 and f"adhoc/{alone.id}" in made and f"mine/{alone.id}" in made
    assert {name.split("/")[0] for name in made} == {"adhoc", "mine"}


def test_a_single_run_takes_a_name(capsys):
    assert main(["train", *TINY, "name=2026"]) == 0  # a number for Hydra
    assert "run 1 of" not in capsys.readouterr().out
    assert [name.split("/")[0] for name in folders("results")] == ["2026"]


def test_a_name_goes_before_an_experiments():
    words = ["+experiment=quickstart", "optimizer=lars"]
    named, plain = configure(*words, "name=mine"), configure(*words)
    assert (named.experiment, plain.experiment) == ("mine", "quickstart")
    assert identity(named) == identity(plain)
