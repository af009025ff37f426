import csv
import json
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from support import configure

from lbt import records, runtime, sweep
from lbt.cli import main
from lbt.config import CONFIG_DIR
from lbt.errors import UserError
from lbt.identity import identity, run_id, to_json
from lbt.report.frame import load
from lbt.report.reality import selection, study
from lbt.report.reality.figures import draw, rate, steps_to_target
from lbt.report.reality.results import Results, ablations, gather, reach, summary
from lbt.report.reality.study import Final
from lbt.report.reality.verdict import verdict
from lbt.sweep.tuning import chosen_trials, space

NAME = "reality_check_small"
BATCH = 512
PROVENANCE = {
    "lbt": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.11.0", "device_name": "a machine",
    "data": "cifar10 (planted)", "data_fingerprint": "f" * 16, "steps_per_epoch": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def base():
    """Composed once: the final runs' configuration of each contestant."""
    names = study.read(NAME).contestants
    words = ("epochs=2", f"batch={BATCH}", "data.subset=10000", "data.augment=crop_flip", "lr_scaling=none")
    schedules = {"tvlars": "constant"}
    return {
        name: runtime.settle(
            configure(f"optimizer={name}", f"schedule={schedules.get(name, 'warmup_polynomial')}", *words)
        )
        for name in names
    }


@cache
def trial(optimizer, number):
    """The configuration of a trial as the sweep composes it."""
    ranges = space.read(optimizer)
    drawn = ranges.trial(space.points(len(ranges.axes), number + 1, 0)[number], 2)
    words = [space.override(key, value) for key, value in drawn.items()]
    words += [f"optimizer={optimizer}", "epochs=2", f"batch={BATCH}", "data.subset=10000", "data.val=0.2"]
    config = configure("+experiment=reality_check_small_tune", "data.augment=crop_flip", *words)
    return replace(runtime.settle(config), study={"trial": number})


class Planted:
    """Writes records as runs would have left them."""

    def __init__(self, folder, base):
        self.folder, self.base = folder, base

    def write(self, config, metric, values, status="done"):
        name = run_id(identity(config), PROVENANCE["data_fingerprint"])
        first = {"kind": "run", "schema": 1, "id": name, "config": to_json(config), "provenance": PROVENANCE}
        path = records.path_of(self.folder, config.experiment, name)
        writer = records.RecordWriter(path, [records.to_line(first)])
        for epoch, value in enumerate(values, 1):
            writer.append({"kind": "epoch", "epoch": epoch, "step": 20 * epoch, metric: value})
        if status:
            writer.end(status, {"epochs": len(values), metric: values[-1]})
        return name

    def tune(self, optimizer, scores, status="done"):
        """Trials at the points of the optimizer's own space; a score of None diverges."""
        for number, score in enumerate(scores):
            config = trial(optimizer, number)
            self.write(config, "val_accuracy", [1.0, score], "diverged" if score is None else status)

    def final(self, optimizer, values, origin, variant=None, lr=None):
        for seed, value in enumerate(values, 1):
            config = replace(
                self.base[optimizer],
                experiment="reality_check_small_final",
                seed=seed,
                lr=lr or self.base[optimizer].lr,
                study={"chosen": origin} | ({"variant": variant} if variant else {}),
            )
            last = [None if value is None else value / 2, value]
            self.write(config, "test_accuracy", last, "diverged" if value is None else "done")

    def choose(self):
        assert selection.choose(NAME, self.folder) == 0
        return {one.optimizer: one for one in chosen_trials.read(chosen_trials.path_of(self.folder, NAME))}

    def results(self):
        return gather(study.read(NAME), load(self.folder), self.folder)


@pytest.fixture
def planted(tmp_path, base):
    return Planted(tmp_path, base)


def normal(mean, n, seed=0, spread=0.4):
    return np.random.default_rng([seed, round(mean * 10)]).normal(mean, spread, n).tolist()


def comparison(planted, nesterov, lars):
    """Tunes both, lamb a poor second to LARS, and writes the final runs given."""
    planted.tune("nesterov", [30.0, 41.0, 35.0])
    planted.tune("lars", [28.0, 25.0, 40.0])
    planted.tune("lamb", [28.0, 25.0, 22.0])
    picked = planted.choose()
    planted.final("nesterov", nesterov, picked["nesterov"].id)
    planted.final("lars", lars, picked["lars"].id)
    planted.final("lamb", normal(20, len(lars)), picked["lamb"].id)
    return verdict(planted.results(), BATCH)


WINNERS = [
    (normal(45, 8), normal(42, 8), "exceeds", "tuned nesterov exceeds lars"),
    (normal(42, 8), normal(45, 8), "falls short", "tuned nesterov falls short of lars"),
    (normal(45, 30, spread=0.1), normal(45.05, 30, spread=0.1), "suffices", "less than 0.5 % points below lars"),
    (normal(45, 6), [None] * 6, "not decided", "6 of 6 runs of lars do not train, which is no gain; .*n=6, 6 diverged"),
    ([None] * 6, normal(45, 6), "falls short", "n=6, 6 diverged"),
    (normal(45, 6, spread=3), normal(45, 6, 1, spread=3), "not decided", r"needs about \d+ more seeds? a side"),
    (normal(45, 1), normal(42, 8), "not decided", "needs at least 4 more seeds"),
]


@pytest.mark.parametrize(("nesterov", "lars", "decision", "words"), WINNERS, ids=[f"{w[2]}: {w[3]}" for w in WINNERS])
def test_a_planted_winner_is_found(planted, nesterov, lars, decision, words):
    found = comparison(planted, nesterov, lars)
    assert found.decision == decision
    assert re.search(words, found.sentence) and found.sentence.count("\n") == 0


def test_final_runs_that_diverged_count_as_chance(planted):
    """Two of five at 10 %: the middle one of 10, 10, 44, 45, 46."""
    comparison(planted, [46.0, None, 44.0, None, 45.0], normal(42, 5))
    (row,) = [row for row in summary(planted.results()) if row["optimizer"] == "nesterov"]
    assert (row["median %"], row["diverged"], row["quartiles %"]) == (44.0, 2, (10.0, 45.0))


def test_five_seeds_suffice_only_where_the_exact_interval_does(planted):
    """Of 25 differences the third smallest is the bound: P(U <= 2) = 4/252; the medians alone would differ by 0.1."""
    lars = [45.0, 45.1, 45.2, 45.3, 45.4]
    found = comparison(planted, [44.3, 44.9, 45.1, 45.2, 45.3], lars)
    bound = sorted(one - other for one in [44.3, 44.9, 45.1, 45.2, 45.3] for other in lars)[2]
    assert bound < -0.5 and found.decision == "not decided"
    assert f"exact 95 % interval {bound:+.2f} to" in found.sentence
    assert comparison(planted, [44.9, 44.95, 45.1, 45.2, 45.3], lars).decision == "suffices"


def test_the_order_of_the_contestants_does_not_turn_the_verdict_round(planted):
    found = comparison(planted, normal(42, 8), normal(45, 8))
    results = planted.results()
    results.study = replace(results.study, contestants=results.study.contestants[::-1])
    turned = verdict(results, BATCH)
    assert found.decision == turned.decision == "falls short"
    assert "interval -" in found.sentence and "interval -" in turned.sentence


def test_nothing_is_decided_before_the_planned_trials_and_seeds_are_there(planted):
    """Nesterov is 3 % points above LARS in every seed."""
    comparison(planted, normal(45, 6), normal(42, 6))
    results = planted.results()

    def planned(n_trials, n_seeds):
        plan = {"n_trials": n_trials, "n_seeds": n_seeds, "contestants": ["nesterov", "lars", "lamb"]}
        return verdict(replace(results, study=replace(results.study, **plan)), BATCH)

    assert planned(3, 6).decision == planned(None, 6).decision == planned(3, None).decision == "exceeds"
    for n_trials, n_seeds, what in ((4, 6, "4 planned trials each nesterov has 3, lars has 3, lamb has 3"),
                                    (3, 7, "7 planned seeds each nesterov has 6, lars has 6, lamb has 6")):  # fmt: skip
        found = planned(n_trials, n_seeds)
        assert found.decision == "not decided" and f"not decided yet: of {what}; nesterov (" in found.sentence
    results.finals = [final for final in results.finals if final.optimizer != "lamb"]
    assert "of 6 planned seeds each lamb has 0;" in planned(3, 6).sentence


def test_the_studies_plan_what_their_experiments_run():
    for name in study.names():
        one = study.read(name)
        for experiment, key in ((one.tune, "n_trials"), (one.final, "n_seeds")):
            sweeper = OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml").hydra.sweeper
            assert getattr(one, key) in (None, sweeper[key])


@pytest.mark.parametrize("nesterov", [31.52, 31.53, 31.51])
def test_a_shift_of_the_whole_margin_does_not_suffice(planted, nesterov):
    """As floats 31.52 - 32.02 is below -0.5, 31.51 - 32.01 is above."""
    planted.tune("nesterov", [41.0])
    planted.tune("lars", [40.0])
    picked = planted.choose()
    planted.final("nesterov", [nesterov] * 8, picked["nesterov"].id)
    planted.final("lars", [32.01 if nesterov == 31.51 else 32.02] * 8, picked["lars"].id)
    assert (verdict(planted.results(), BATCH).decision == "suffices") == (nesterov == 31.53)


def test_a_run_that_is_lost_after_the_target_does_not_count_as_having_reached_it(planted):
    planted.tune("nesterov", [41.0])
    one = planted.choose()["nesterov"]
    planted.final("nesterov", [90.0, 90.0, None, None], one.id)  # half of the figure after the first epoch: 45
    final = planted.results().final("nesterov", BATCH)
    final.epochs[2][0]["test_accuracy"] = 60.0
    assert reach(planted.results(), final) == [20, 20, math.inf, math.inf]


def test_choosing_says_whose_effort_is_less(planted, capsys):
    planted.tune("nesterov", [30.0, 40.0])
    planted.tune("lars", [30.0])
    planted.choose()
    said = "unequal effort at batch 512, finished trials: nesterov 2, lars 1, lamb 0, tvlars 0"
    assert said in capsys.readouterr().err
    plan = replace(study.read(NAME), n_trials=2, contestants=["nesterov", "lars"])
    made = planted.results().trials
    assert study.effort(plan, made) == ["of 2 planned trials each, finished at batch 512: nesterov 2, lars 1"]
    assert study.effort(replace(plan, contestants=["nesterov"]), made) == []


def test_ablations_stand_beside_their_own_optimizers_choice(full):
    """LARS's chosen is at 42, its change at 41; Nesterov's chosen is at 45."""
    one = next(f for f in full.results().finals if f.optimizer == "lars")
    full.final("lars", normal(41, 5), one.chosen, variant="no warm-up", lr=0.456)
    rows = [(row["optimizer"], row["change"], row["against chosen, % points"]) for row in ablations(full.results())]
    assert [row[:2] for row in rows] == [
        ("nesterov", "as chosen"), ("nesterov", "no decay"), ("lars", "as chosen"), ("lars", "no warm-up"),
    ]  # fmt: skip
    assert -2 < rows[3][2] < 0


def test_a_missing_side_is_said(planted):
    assert verdict(planted.results(), BATCH).sentence == "not decided: no trial of nesterov has been chosen."
    planted.tune("nesterov", [30.0])
    planted.tune("lars", [28.0])
    planted.choose()
    assert verdict(planted.results(), BATCH).sentence == "not decided: no final runs of nesterov, chosen in tuning."


def test_the_best_trial_is_chosen_and_written_down_with_its_settings(planted):
    planted.tune("nesterov", [30.0, 44.0, 44.0, None, 10.0])
    one = planted.choose()["nesterov"]
    ranges = space.read("nesterov")
    drawn = ranges.trial(space.points(len(ranges.axes), 5, 0)[1], 2)
    assert (one.trial, one.score, one.trials, one.infeasible) == (1, 44.0, 5, 2)  # one diverged, one at chance
    assert list(one.settings) == list(drawn)
    for key, value in drawn.items():
        assert one.settings[key] == (value if value is None or isinstance(value, str) else pytest.approx(float(value)))
    record = records.read(records.find(planted.folder, one.id))
    assert record.run["config"]["lr"] == one.settings["lr"] and record.run["config"]["study"] == {"trial": 1}


def test_a_value_near_a_bound_is_on_the_edge(planted):
    ranges = space.read("lars")
    config = {"epochs": 10, "lr": 99.0, "warmup": 2.0, "schedule": {"end": 0.003}, "task": {"label_smoothing": 0.1}}
    config |= {"optimizer": {"momentum": 0.9949, "weight_decay": 1e-3}, "model": {"bn_momentum": 0.1, "bn_eps": 1e-5}}
    assert selection.edges(ranges, config) == ["lr", "optimizer.momentum"]


def test_infeasible_trials_are_counted_and_stay_in_the_curve(planted):
    planted.tune("nesterov", [30.0, None, 40.0, 10.4])  # of 10,000 images, chance reaches up to 10.9 %
    planted.tune("lars", [35.0, 36.0, 37.0])
    planted.choose()
    found = planted.results()
    rows = {row["optimizer"]: row for row in summary(found)}
    assert rows["nesterov"]["infeasible trials"] == "50 %" and rows["lars"]["infeasible trials"] == "0 %"
    assert rows["nesterov"]["n"] == 0
    assert sorted(found.trials["nesterov", BATCH].scores) == [10.0, 10.4, 30.0, 40.0]
    assert any("unequal effort at batch 512, finished trials: nesterov 4, lars 3" in note for note in found.notes)


def test_a_choice_over_nothing_is_one_line(planted, capsys):
    command = ["reality", "choose", NAME, "--results-dir", str(planted.folder)]
    assert main(command) == 2
    assert "nothing to choose from; no trial yet: nesterov at 512" in capsys.readouterr().err
    planted.tune("nesterov", [None, None])
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "nesterov at batch 512: none of its 2 trials trained" in said and said.count("\n") == 1
    assert not (planted.folder / "reality").exists()


def test_trials_without_the_rules_metric_are_not_said_to_have_diverged(planted, capsys):
    for number in range(2):
        planted.write(trial("nesterov", number), "test_accuracy", [10.0, 80.0])
    assert main(["reality", "choose", NAME, "--results-dir", str(planted.folder)]) == 2
    assert "its trials have no val_accuracy; data.val=0.1 holds some out" in capsys.readouterr().err


def test_settings_that_a_record_has_elsewhere_are_found_and_fixed_ones_are_the_spaces_own():
    config = {
        "lr": 0.3,
        "lr_scaling": "sqrt",
        "data": {"val": 0.1, "options": {"resolution": 8}},
        "optimizer": {"betas": [0.8, 0.9]},
    }
    keys = ("optimizer.lr", "optimizer.lr_scaling", "data.resolution", "data.val", "optimizer.betas[1]")
    assert [selection._at(config, key) for key in keys] == [0.3, "sqrt", 8, 0.1, 0.9]


def test_a_fixed_choice_is_written_down_by_its_own_name(planted, monkeypatch):
    """The file of `nowa` says that it is a `warmup_polynomial`."""
    own = space.read("nesterov")
    monkeypatch.setattr(space, "of", lambda *_: replace(own, fixed={**own.fixed, "schedule": "nowa"}))
    planted.tune("nesterov", [30.0, 41.0])
    assert planted.choose()["nesterov"].settings["schedule"] == "nowa"


def test_unfinished_trials_cannot_be_chosen(planted):
    planted.tune("nesterov", [70.0], status=None)
    with pytest.raises(UserError, match="no finished trial to choose from, 1 unfinished"):
        planted.choose()


def test_records_on_other_data_or_of_another_length_are_refused(planted, monkeypatch):
    planted.tune("nesterov", [30.0])
    monkeypatch.setitem(PROVENANCE, "data_fingerprint", "e" * 16)
    planted.tune("lars", [30.0])
    with pytest.raises(UserError, match="differ in fingerprint"):
        planted.results()


def test_final_runs_of_a_trial_no_longer_chosen_are_left_out_and_said(planted):
    planted.tune("nesterov", [30.0, 40.0])
    planted.choose()
    planted.final("nesterov", normal(45, 5), "0" * 16)
    found = planted.results()
    assert found.final("nesterov", BATCH) is None
    assert "5 final runs of trials that are no longer the chosen ones are left out" in found.notes


@pytest.fixture
def full(planted):
    comparison(planted, normal(45, 5), normal(42, 5))
    picked = {one.optimizer: one for one in chosen_trials.read(chosen_trials.path_of(planted.folder, NAME))}
    planted.final("nesterov", normal(33, 5), picked["nesterov"].id, variant="no decay", lr=0.123)
    return planted


def test_the_command_writes_page_tables_and_figures_the_same_bytes_each_time(full, capsys):
    def written():
        assert main(["reality", "--results-dir", str(full.folder)]) == 0
        found = [path for path in full.folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
        return {path.relative_to(full.folder): path.read_bytes() for path in found}

    first = written()
    assert "tuned nesterov exceeds lars" in capsys.readouterr().out
    assert first == written()
    wanted = {
        f"figures/{NAME}_{name}.{kind}" for name in ("best_of_k", "boxes", "schedules") for kind in ("svg", "png")
    }
    wanted |= {f"tables/{NAME}_{name}.{kind}" for name in ("summary", "pairs", "best_of_k", "ablations", "chosen")
              for kind in ("md", "csv", "tex")}  # fmt: skip
    assert {path.as_posix() for path in first} == wanted | {"README.md", "REALITY_CHECK.md", f"reality/{NAME}.yaml"}
    page = (full.folder / "REALITY_CHECK.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (full.folder / target).exists()


def test_the_tables_hold_the_records_numbers(full):
    main(["reality", NAME, "--results-dir", str(full.folder)])
    rows = {row["optimizer"]: row for row in read_csv(full.folder / f"tables/{NAME}_summary.csv")}
    values = normal(45, 5)
    assert float(rows["nesterov"]["median %"]) == pytest.approx(np.median(values), abs=1e-5)
    assert rows["nesterov"]["at the target"] == "100 %" and float(rows["nesterov"]["steps to target"]) == 40
    assert rows["lamb"]["at the target"] == "0 %" and rows["lamb"]["steps to target"] == "inf"
    changes = {row["change"]: row for row in read_csv(full.folder / f"tables/{NAME}_ablations.csv")}
    difference = np.median([changed - value for changed in normal(33, 5) for value in values])
    assert float(changes["no decay"]["against chosen, % points"]) == pytest.approx(difference, abs=1e-5)
    assert {"its 95 % interval, low", "its 95 % interval, high"} < changes["no decay"].keys() - {"its 95 % interval"}
    recorded = {path.stem for path in (full.folder / "runs").rglob("*.jsonl")}
    for table in ("summary", "pairs", "best_of_k", "ablations"):
        runs = [set(row["runs"].split()) for row in read_csv(full.folder / f"tables/{NAME}_{table}.csv")]
        assert all(one and one <= recorded for one in runs)
        assert "runs" not in (full.folder / f"tables/{NAME}_{table}.md").read_text().splitlines()[0]
    pairs = read_csv(full.folder / f"tables/{NAME}_pairs.csv")
    assert [(row["first"], row["second"]) for row in pairs] == [
        ("nesterov", "lars"), ("nesterov", "lamb"), ("lars", "lamb"),
    ]  # fmt: skip


def test_the_drawn_schedule_is_the_formula(full):
    """s <= W: base * (s/W)**power; then end + (base - end) * (1 - (s - W)/(T - W))**decay_power."""
    final = full.results().final("nesterov", BATCH)
    steps, rates, peak = rate(final)
    schedule = json.loads(json.dumps(final.config["schedule"]))
    warm, total = round(schedule["warmup"] * 20), 40
    assert (
        steps == list(range(1, total + 1)) and max(rates) == pytest.approx(peak) and rates.index(max(rates)) == warm - 1
    )
    by_hand = [peak * s / warm if s <= warm else peak * (1 - (s - warm) / (total - warm)) ** 2 for s in steps]
    assert rates == pytest.approx(by_hand)


def test_without_final_runs_the_figures_that_need_them_are_not_drawn(planted, tmp_path):
    planted.tune("nesterov", [30.0, 40.0])
    assert draw(planted.results(), tmp_path / "figures").keys() == {f"{NAME}_best_of_k"}


def test_steps_to_target_are_medians_and_perfect_scaling_halves_them():
    def final(name, batch, steps):
        epochs = [
            [{"step": s, "test_accuracy": a} for s, a in ((1, 5.0), (reached, 99.0 if reached else 6.0))]
            for reached in steps
        ]
        shown = ("epochs", "model.name", "origin", "samples", "fingerprint", "protocol.name", "precision")
        runs = pd.DataFrame([{"status": "done", **dict.fromkeys(shown, "-")}] * len(steps))
        return Final(name, batch, "", "", runs, [99.0] * len(steps), 0, epochs, {})

    one = study.read("reality_check")
    finals = [
        final("nesterov", 512, [400, 100, 200]),
        final("nesterov", 4096, [90, 0, 60]),  # 0: never; later than any other
        final("lars", 512, [300, 300, 300]),
        final("lars", 4096, [0, 0, 60]),
    ]
    axes = steps_to_target(Results(one, {}, {}, finals, [])).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["nesterov"] == [[512, 200], [4096, 90]]
    assert lines["lars"] == [[512, 300]]  # most of its runs never reached it at 4,096
    assert lines["perfect scaling"] == [[512, 200], [4096, 25], [16384, 6.25]]
    assert steps_to_target(Results(one, {}, {}, finals[:1], [])) is None


def test_damaged_trials_are_named_when_one_is_chosen(planted, capsys):
    planted.tune("nesterov", [30.0, 40.0])
    path = records.find(planted.folder, run_id(identity(trial("nesterov", 1)), "f" * 16))
    path.write_text(path.read_text().replace("40.0", "41.0"))
    assert planted.choose()["nesterov"].trial == 0
    assert f"left out: {path}: edited" in capsys.readouterr().err


def test_a_trial_run_before_its_study_takes_its_place_in_it(planted):
    planted.tune("nesterov", [30.0])
    early = replace(trial("nesterov", 1), study=None)
    planted.write(early, "val_accuracy", [1.0, 44.0])
    none_of_it = replace(trial("nesterov", 2), study=None, lr=123.0)
    planted.write(none_of_it, "val_accuracy", [1.0, 77.0])
    one = planted.choose()["nesterov"]
    assert (one.trial, one.score, one.trials) == (1, 44.0, 2)
    found = planted.results()
    assert list(found.trials["nesterov", BATCH].runs["study.trial"]) == [0, 1]
    assert "1 runs in the folder of reality_check_small_tune are none of its grid" in found.notes


def test_a_final_run_made_before_its_study_counts(planted):
    for optimizer in ("nesterov", "lars", "lamb", "tvlars"):
        planted.tune(optimizer, [30.0, 40.0])
    picked = planted.choose()
    words = ["+experiment=reality_check_small_final", f"results_dir='{planted.folder}'"]
    own = [job.config for job in sweep.grid(words) if job.config.optimizer["name"] == "nesterov"]
    for config in own:
        value = 50.0 + config.seed - (10 if "variant" in config.study else 0)
        planted.write(replace(runtime.settle(config), study=None), "test_accuracy", [1.0, value])
    found = planted.results()
    assert found.final("nesterov", BATCH).values == [51.0, 52.0, 53.0, 54.0, 55.0]
    variants = {final.variant: final.values[0] for final in found.finals}
    assert len(variants) > 1 and set(variants.values()) == {51.0, 41.0}
    assert {final.chosen for final in found.finals} == {picked["nesterov"].id}


def test_final_runs_that_differ_in_a_setting_where_null_and_zero_differ_are_not_one_sample(planted):
    planted.tune("nesterov", [30.0, 40.0])
    origin = planted.choose()["nesterov"].id
    planted.final("nesterov", [45.0, 46.0, 47.0], origin)
    planted.base = {"nesterov": replace(planted.base["nesterov"], bias_lr_factor=0.0)}
    planted.final("nesterov", [15.0, 16.0, 17.0], origin)
    found = planted.results()
    assert found.final("nesterov", BATCH) is None
    assert any("runs of differing settings, left out" in note for note in found.notes)


@pytest.mark.parametrize("name", study.names())
def test_every_study_is_sound_and_its_experiments_exist(name):
    one = study.read(name)
    for experiment in (one.tune, one.final):
        assert configure(f"+experiment={experiment}").experiment == experiment


def test_a_wrong_study_is_one_line():
    with pytest.raises(UserError, match='there is no study "realty_check"; did you mean "reality_check"'):
        study.read("realty_check")
    good = {key: value for key, value in vars(study.read(NAME)).items() if key != "name"}
    good["rule"] = vars(good["rule"])
    for change, message in [
        ({"colour": 1}, "colour: no such setting"),
        ({"target": "high"}, "target=high: expected a number"),
        ({"rule": {"metric": "val_accuracy", "epoch": "first"}}, "epoch=first: no such choice"),
        ({"generic": ["sgd"]}, "sgd is none of the contestants"),
    ]:
        with pytest.raises(UserError, match=message):
            study.parse("wrong", {**good, **change})
    with pytest.raises(UserError, match="margin is missing"):
        study.parse("wrong", {key: value for key, value in good.items() if key != "margin"})


def read_csv(path):
    return list(csv.DictReader(path.open()))


def test_the_page_of_results_names_the_page_its_tables_and_its_figures(full):
    main(["reality", "--results-dir", str(full.folder)])
    text = (full.folder / "README.md").read_text()
    assert "](REALITY_CHECK.md): Nado et al." in text
    for path in [*full.folder.glob("tables/*"), *full.folder.glob("figures/*")]:
        assert f"]({path.parent.name}/{path.name})" in text, path.name
    assert f"`lbt reality {NAME}`" in text
