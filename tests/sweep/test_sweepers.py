import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support import TINY

from lbt import records, sweep
from lbt.cli import main
from lbt.config import groups
from lbt.sweep import status
from lbt.sweep.tuning import chosen_trials, space

# The small model has none of the settings of a ResNet's norm layers to vary, so a space of its own is used.
OWN = {"fixed": {"schedule": "warmup_polynomial", "lr_scaling": "none"}, "axes": {"lr": {"log": [0.01, 1]}}}
TUNE = ["train", "-m", *TINY, "hydra/sweeper=quasi_random", "data.val=0.25", "batch=8"]


@pytest.fixture(scope="module", autouse=True)
def own_spaces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs") / "space"
    folder.mkdir()
    for name in ("nesterov", "lars"):
        OmegaConf.save(OmegaConf.create(OWN), folder / f"{name}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "folders", lambda: (folder.parent, groups.CONFIG_DIR))
        yield folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(kind):
    found = [records.read(path).run["config"] for path in records.paths("results")]
    return [config for config in found if kind in config["study"]]


def test_a_sweep_runs_the_spaces_points_and_can_be_extended(capsys):
    assert main([*TUNE, "hydra.sweeper.n_trials=3", "optimizer=nesterov,lars"]) == 0
    wanted = [float(space.parse("own", OWN).trial(point, 4)["lr"]) for point in space.points(1, 5, 0)]
    for name in ("nesterov", "lars"):
        own = {c["study"]["trial"]: c["lr"] for c in made("trial") if c["optimizer"]["name"] == name}
        assert own == dict(enumerate(wanted[:3]))
    assert main([*TUNE, "hydra.sweeper.n_trials=5", "optimizer=nesterov,lars"]) == 0
    assert capsys.readouterr().out.count("done before") == 6 and len(made("trial")) == 10
    own = {c["study"]["trial"]: c["lr"] for c in made("trial") if c["optimizer"]["name"] == "lars"}
    assert own == dict(enumerate(wanted))


def test_all_cells_advance_together_and_status_knows_them():
    words = [word for word in TUNE[2:] if word != "batch=8"] + ["hydra.sweeper.n_trials=2", "optimizer=lars,nesterov"]
    grid = [job.config for job in sweep.grid([*words, "batch=8,16"])]
    order = [(config.study["trial"], config.optimizer["name"], config.batch) for config in grid]
    cells = [("lars", 8), ("nesterov", 8), ("lars", 16), ("nesterov", 16)]
    assert order == [(trial, *cell) for trial in (0, 1) for cell in cells]
    main(["train", "-m", *words, "batch=8"])
    assert [state for state, _ in status.find(grid)] == [
        "done",
        "done",
        "missing",
        "missing",
    ] * 2


def test_the_trials_number_is_not_part_of_the_runs_id():
    main([*TUNE, "hydra.sweeper.n_trials=1", "optimizer=lars"])
    (config,) = made("trial")
    again = ["schedule=warmup_polynomial", "lr_scaling=none", f"lr={config['lr']}", "optimizer=lars"]
    assert main(["train", *TINY, "data.val=0.25", "batch=8", *again]) == 0
    assert len(records.paths("results")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.n_trials=0"], "n_trials=0: expected 1 or more"),
        (["hydra.sweeper.n_trials=some"], "n_trials"),
        (["hydra.sweeper.space=sgdd"], 'space=sgdd: there is no space "sgdd"'),
        (["optimizer=sm3"], 'space=sm3: there is no space "sm3"'),
        (["lr=0.1"], "lr: is set by the space lars"),
        (["hydra.sweeper.colour=red"], "colour"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_run(words, message, capsys):
    assert main([*TUNE, "optimizer=lars", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not records.paths("results")


def test_a_space_with_an_unknown_setting_is_one_line(own_spaces, capsys):
    wrong = {"axes": {"optimizer.etaa": {"log": [0.01, 1]}}}
    OmegaConf.save(OmegaConf.create(wrong), own_spaces / "wrong.yaml")
    assert main([*TUNE, "optimizer=lars", "hydra.sweeper.space=wrong"]) == 2
    assert 'optimizer.etaa: no such setting; did you mean "optimizer.eta"?' in capsys.readouterr().err


FINAL = [
    "train", "-m", *TINY, "hydra/sweeper=chosen", "hydra.sweeper.file=chosen.yaml", "batch=8",
    "optimizer=nesterov", "hydra.sweeper.ablate=nesterov",
    "+hydra.sweeper.ablations={a constant rate:{schedule.end:1},the same:{lr_scaling:none}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def tuned_once(own_spaces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    assert main([*TUNE, "hydra.sweeper.n_trials=2", "optimizer=nesterov", f"results_dir={folder}/results"]) == 0
    found = [records.read(path).run for path in records.paths(folder / "results")]
    (record,) = [run for run in found if run["config"]["study"]["trial"] == 1]
    settings = {"schedule": "warmup_polynomial", "lr_scaling": "none", "lr": record["config"]["lr"]}
    one = chosen_trials.Choice("nesterov", 8, 1, record["id"], 50.0, 2, 0, [], settings)
    chosen_trials.write(folder / "chosen.yaml", {"metric": "val_accuracy"}, "tune", [one])
    return folder, record


@pytest.fixture
def tuned(tuned_once, tmp_path):
    """An empty folder but for two trials and the choice of the second, whose record it returns."""
    shutil.copytree(tuned_once[0], tmp_path, dirs_exist_ok=True)
    return tuned_once[1]


def test_final_runs_are_the_chosen_trial_with_fresh_seeds_and_its_ablations(tuned):
    assert main([*FINAL, "hydra.sweeper.n_seeds=6"]) == 0
    finals = made("chosen")
    plain = [config for config in finals if "variant" not in config["study"]]
    changed = [config for config in finals if "variant" in config["study"]]
    for group in (plain, changed):
        assert sorted(config["seed"] for config in group) == [1, 2, 3, 4, 5, 6]
    assert {json.dumps(config["study"]) for config in plain} == {json.dumps({"chosen": tuned["id"]})}
    assert {config["study"]["variant"] for config in changed} == {"a constant rate"}  # the other changes nothing
    for config in plain:
        keys = set(config) - {"seed", "data", "experiment", "study", "device"}
        assert {key: config[key] for key in keys} == {key: tuned["config"][key] for key in keys}
        assert config["data"] == {**tuned["config"]["data"], "val": 0.0}
    assert all(config["schedule"]["end"] == 1 and config["lr"] == tuned["config"]["lr"] for config in changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.n_seeds=4"], "n_seeds=4: an interval needs at least 5 seeds"),
        (["hydra.sweeper.first_seed=0"], "tuned with seed 0"),
        (["optimizer=lars"], "chosen.yaml: no trial of lars at batch 8 was chosen"),
        (["hydra.sweeper.file=none.yaml"], "none.yaml: no trial has been chosen yet"),
        (["epochs=5"], "epochs: 5.0 in the final runs, 4.0 in the chosen trial of nesterov"),
        (["results_dir=elsewhere"], "elsewhere: the record of the chosen trial"),
    ],
)
def test_a_mistake_in_the_final_runs_is_one_line(tuned, words, message, capsys):
    capsys.readouterr()
    assert main([*FINAL, *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not made("chosen")


def test_a_damaged_record_of_the_chosen_trial_is_one_line(tuned, capsys):
    for path in records.paths("results"):
        path.write_text("no record\n")
    capsys.readouterr()
    assert main(FINAL) == 2
    said = capsys.readouterr().err
    assert "the record of the chosen trial is damaged: results/runs/" in said and said.count("\n") == 1


def test_a_file_that_is_none_is_one_line(tuned, capsys):
    Path("chosen.yaml").write_text("chosen: [{optimizer: lars}]")
    assert main(FINAL) == 2
    assert "chosen.yaml: not a file of chosen trials" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=5"], "lr: is set by the chosen trial"),
        (["schedule=constant"], "schedule: is set by the chosen trial"),
        (["seed=7"], "seed: hydra.sweeper.first_seed and hydra.sweeper.n_seeds say which seeds there are"),
        (["hydra.sweeper.ablate=nestrov"], 'ablate=nestrov: no trial of it was chosen; did you mean "nesterov"?'),
    ],
)
def test_what_would_have_no_effect_on_final_runs_is_one_line(tuned, capsys, words, message):
    kept = [word for word in FINAL if not word.startswith(words[0].split("=")[0])]
    assert main([*kept, *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not made("chosen")


def test_cells_that_the_space_tells_apart_are_all_run(own_spaces):
    """CLARS has a constant rate, on which a warm-up has no effect, until its space sets another."""
    OmegaConf.save(OmegaConf.create(OWN), own_spaces / "clars.yaml")
    words = [*TUNE[2:], "optimizer=clars", "hydra.sweeper.n_trials=2", "warmup=1,2"]
    found = [job.config for job in sweep.grid(words)]
    assert [(config.study["trial"], config.warmup) for config in found] == [(0, 1), (0, 2), (1, 1), (1, 2)]
