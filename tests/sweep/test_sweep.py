import json
import signal

import pytest
from hydra.types import RunMode
from support import TINY, run_tiny, tiny_config

from lbt import records, sweep
from lbt.cli import main
from lbt.config import resolve
from lbt.identity import identity
from lbt.records import index
from lbt.run import finished
from lbt.sweep import app
from lbt.sweep.composer import _Composition
from lbt.sweep.hydra_session import loader


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=lars,tvlars,nesterov", "batch=512,4096", "protocol=paper,released"],
        ["+experiment=tvlars_table1_cifar10_clf", "batch=512,16384", "data.val=0,0.1", "lr_rank=1"],
        ["schedule=warmup_polynomial,constant", "++optimizer.eta=0.01,0.02", "warmup=3"],
        ["model=resnet18,resnet34", "optimizer=lamb", "schedule.batch={30:2048},{60:8192}"],
        [
            "task=barlow_twins",
            "task.projector=[64,64],[32]",
            "seed=1,2",
            "data.subset=100",
            "epochs=5,200",
            "study={trial:1}",
        ],
        ["optimizer=sam", "optimizer@optimizer.base=tvlars,lars", "optimizer.base.eta=1,2", "data.root=a,'b c'"],
        [
            "optimizer=tvlars",
            "lr='${batch}',2",
            "batch=512,1024",
            "+schedule.warmup_power=2,3",
            "protocol.lr_table={512:[1,2]}",
        ],
        ["optimizer=muon", "optimizer.betas=[0.8,0.9],[0.7,0.8]", "lr_scaling=none,linear", "warmup=1,2"],
    ],
)
def test_a_grids_configurations_are_those_hydra_composes_one_by_one(overrides):
    found = sweep.grid(overrides)
    with loader() as hydra:
        master = hydra.load_configuration("train", overrides=overrides, run_mode=RunMode.MULTIRUN)
        for job in found:
            assert job.config == resolve(hydra.load_sweep_config(master, job.overrides))
    assert len({json.dumps(identity(job.config)) for job in found}) == len(found) > 1


def test_runs_that_differ_in_seeds_and_rates_alone_are_not_composed_one_by_one(monkeypatch):
    composed, exact = [], _Composition.exact
    monkeypatch.setattr(_Composition, "exact", lambda self, values: composed.append(1) or exact(self, values))
    found = sweep.grid(["optimizer=lars,tvlars", "batch=512,1024", "lr_rank=0,2", "seed=range(100)"])
    assert len(found) == 800
    assert len(composed) <= 2 * 2 * 2 + 2


def test_jobs_that_are_one_run_are_listed_once():
    # alpha is a switch of TVLARS: LARS is the same run with it and without
    found = sweep.grid(["optimizer=tvlars,lars", "protocol.tvlars_alpha=1.0,0.1", "seed=0,1"])
    assert [(job.config.optimizer["name"], job.config.optimizer.get("alpha"), job.config.seed) for job in found] == [
        ("tvlars", 1.0, 0), ("tvlars", 1.0, 1), ("tvlars", 0.1, 0), ("tvlars", 0.1, 1),
        ("lars", None, 0), ("lars", None, 1),
    ]  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LBT_SWEEP_STARTED", raising=False)
    return tmp_path


def test_finished_runs_are_not_launched(elsewhere, monkeypatch, capsys):
    for seed in (0, 2):
        run_tiny("results", f"seed={seed}")
    (elsewhere / "results" / "runs" / "adhoc").rename(elsewhere / "results" / "runs" / "another")
    launched = []
    run = sweep.GridSweeper.sweep

    def spy(self, arguments):
        launch = self.launcher.launch
        self.launcher.launch = lambda jobs, **rest: launched.extend(jobs) or launch(jobs, **rest)
        return run(self, arguments)

    monkeypatch.setattr(sweep.GridSweeper, "sweep", spy)
    assert main(["train", "-m", *TINY, "seed=0,1,2,3"]) == 0
    assert [job[-1] for job in launched] == ["seed=1", "seed=3"]
    said = capsys.readouterr().out
    assert "2 of 4 runs have been finished before" in said
    table = [line for line in said.splitlines() if "done" in line and "│" in line]
    assert ["before" in line for line in table] == [True, False, True, False]  # in the grid's order


@pytest.mark.parametrize("last", [False, True])
def test_a_signal_in_a_runs_last_evaluation_ends_the_sweep_after_it(elsewhere, monkeypatch, last):
    executed, execute = [], app.execute

    def heard(config, interrupt, reporter, **rest):
        executed.append(config.seed)
        outcome = execute(config, interrupt, reporter, **rest)
        interrupt.signal = signal.SIGINT if config.seed == 1 else None
        return outcome

    monkeypatch.setattr(app, "execute", heard)
    words = ["train", "-m", *TINY, "seed=0,1" if last else "seed=0,1,2"]
    if last:  # there is nothing left to stop
        assert main(words) == 0
    else:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 130
    assert executed == [0, 1]
    assert {records.read(path).status for path in records.paths("results")} == {"done"}


def test_what_is_edited_during_a_sweep_changes_none_of_its_runs(elsewhere, monkeypatch):
    """All of them were checked before the first began, and stand side by side in its table."""
    place = elsewhere / "own" / "optimizer" / "mine.yaml"
    place.parent.mkdir(parents=True)
    text = "defaults: [lars, _self_]\nmomentum: 0.9\nlr: 0.5\nlr_scaling: none\n"
    place.write_text(text)
    execute = app.execute

    def edited(*words, **rest):
        place.write_text(text.replace("0.9", "0.5"))
        return execute(*words, **rest)

    monkeypatch.setattr(app, "execute", edited)
    assert main(["train", "-m", "--config-dir", "own", *TINY, "optimizer=mine", "seed=0,1"]) == 0
    found = [records.read(path).run["config"] for path in records.paths("results")]
    assert sorted((one["seed"], one["optimizer"]["momentum"]) for one in found) == [(0, 0.9), (1, 0.9)]


def test_a_record_from_other_pixels_is_not_this_run(tmp_path):
    outcome = run_tiny(tmp_path)
    config = tiny_config(tmp_path)
    assert finished(config, index.by_key(tmp_path)).id == outcome.id
    text = outcome.path.read_text()
    made_by = records.read(outcome.path).run["provenance"]["data_fingerprint"]
    other = outcome.path.with_name(f"{'0' * 16}.jsonl")
    outcome.path.rename(other)
    other.write_text(text.replace(made_by, "f" * 16).replace(outcome.id, "0" * 16))
    assert finished(config, index.by_key(tmp_path)) is None


@pytest.mark.parametrize("config", [{"newer": 1}, {"protocol": None}, {"data": 5}])
def test_a_record_of_settings_this_program_does_not_know_stops_nothing(tmp_path, config):
    outcome = run_tiny(tmp_path)
    other = outcome.path.with_name(f"{'0' * 16}.jsonl")
    first = records.read(outcome.path).run
    other.write_text(f"{records.to_line(first | {'config': first['config'] | config})}\n")
    assert finished(tiny_config(tmp_path), index.by_key(tmp_path)).id == outcome.id


def test_unfinished_runs_are_not_finished_and_cost_no_data(tmp_path, monkeypatch):
    outcome = run_tiny(tmp_path)
    text = outcome.path.read_text()
    outcome.path.write_text(text.replace('"status": "done"', '"status": "oom"'))

    def refuse(config):
        raise AssertionError("read the data")

    monkeypatch.setattr("lbt.build.images", refuse)
    assert finished(tiny_config(tmp_path), index.by_key(tmp_path)) is None
    assert finished(tiny_config(tmp_path, "seed=9"), index.by_key(tmp_path)) is None
