"""`lbt status` of what is recorded, without a grid."""

import re
from dataclasses import replace

import pytest
from filelock import FileLock
from planted import plant
from support import TINY, configure

from lbt.cli import main
from lbt.records import places


@pytest.fixture(scope="module")
def config():
    return configure(*TINY)


@pytest.fixture
def results(tmp_path, monkeypatch, config):
    """Three runs named mine in three states, two of an experiment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    mine = replace(config, experiment="mine")
    plant("results", replace(mine, lr=0.1), 50.0)
    plant("results", replace(mine, lr=0.2), None, status="diverged")
    running = plant("results", replace(mine, lr=0.2, batch=8), 20.0, status=None)
    for seed in (0, 1):
        plant("results", replace(config, experiment="quickstart", seed=seed), 50.0)
    return running


def rows(text):
    return [re.split(r"\s*│\s*", line)[1:-1] for line in text.splitlines() if "│" in line]


def test_a_name_shows_its_runs_by_what_they_differ_in(results, capsys):
    with FileLock(places.lock_of("results", results.stem)):
        assert main(["status", "mine"]) == 0
    said = capsys.readouterr().out
    found = [row[:-1] for row in rows(said)]
    assert found == [
        ["lars", "8", "0.2", "0", "running", "1/4"],
        ["lars", "16", "0.1", "0", "done", "4/4"],
        ["lars", "16", "0.2", "0", "diverged", "1/4"],
    ]
    assert "mine: 3 runs: 1 diverged, 1 done, 1 running" in said
    assert main(["status", "mine"]) == 0
    assert "1 interrupted" in capsys.readouterr().out  # nobody holds it any more


def test_without_a_name_all_names_are_listed(results, capsys):
    assert main(["status"]) == 0
    mine, quickstart = rows(capsys.readouterr().out)
    assert mine == ["mine", "3", "1 diverged, 1 done, 1 interrupted", "", "batch 2, lr 2"]
    assert quickstart == ["quickstart", "2", "2 done", "", "seed 2"]


def test_a_damaged_record_is_counted_and_named(results, capsys):
    results.write_text("{")
    assert main(["status", "mine"]) == 0
    out, err = capsys.readouterr()
    assert "3 runs: 1 diverged, 1 done, 1 damaged" in out and f"left out: {results}: empty" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nime"], 'there is no study or sweep "nime"; choose from mine, quickstart'),
        (["quickstrt"], 'did you mean "quickstart"?'),
        (["mine", "--results-dir", "nowhere"], "nowhere: no such folder"),
        (["+experiment=quickstart", "--results-dir", "other"], "results_dir=other"),
    ],
)
def test_mistakes_are_one_line(results, capsys, words, message):
    assert main(["status", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
