"""Claims about sharpness and noise: a planted effect is found, its reverse refutes, and the same with noise is open."""

import csv
import math
import re
import statistics
from dataclasses import replace

import numpy as np
import planted
import pytest
from planted import looked
from scipy import stats
from support import configure, run_tiny

from lbt import records, runtime
from lbt.cli import main
from lbt.report.claims.explanations import RULES, Arms
from lbt.report.claims.measures import MEASURES
from lbt.report.claims.rules import FAILS, HOLDS, OPEN
from lbt.report.frame import load
from lbt.report.kit import specs
from lbt.report.looks import Looks
from lbt.report.tables import make

FULL, SMALL = specs.read("table", "why_claims")["sources"]
VARIANTS = {
    "LARS with warm-up": ("+experiment=why_sharpness", "schedule=warmup_cosine"),
    "LARS without warm-up": ("+experiment=why_sharpness", "schedule=nowa"),
    "TVLARS": ("+experiment=why_sharpness_tvlars",),
    "Nesterov": ("+experiment=why_sharpness_nesterov",),
}
ACCURACY = dict(zip(VARIANTS, (50.0, 55.0, 60.0, 65.0), strict=True))
SHARPNESS = {  # by whether the claims are true: 1, false: -1, or there is no effect
    1: dict(zip(VARIANTS, (400.0, 200.0, 100.0, 50.0), strict=True)),
    -1: dict(zip(VARIANTS, (50.0, 100.0, 200.0, 400.0), strict=True)),
    0: dict.fromkeys(VARIANTS, 100.0),
}
FIGURES = {  # early gradients (1 later), change by batch norm, ratios of variances
    1: {"gradients": 0.01, "change": 0.1, "ratio": 0.7, "imbalanced": 0.4},
    -1: {"gradients": 2.0, "change": 0.001, "ratio": 1.3, "imbalanced": 1.6},
    0: {"gradients": 0.1, "change": 0.01, "ratio": 1.0, "imbalanced": 1.0},
}
SPREAD = {1: (0.98, 1.0, 1.02), -1: (0.98, 1.0, 1.02), 0: (0.8, 1.0, 1.2)}


def plant(folder, accuracy, *overrides, seed, spread, **figures):
    """One run; what of its figures is given varies with the seed."""
    early = figures.pop("gradients", 1.0) * spread
    figures = {name: one * spread for name, one in figures.items()}
    figures["gradients"] = lambda over: early if over <= 0.2 else 1.0
    looked(folder, accuracy * spread, *overrides, seed=seed, **figures)


def world(folder, effect, seeds=3):
    """The runs of all experiments, in a world where all claims are true, false, or nothing has an effect."""
    for seed, spread in enumerate(SPREAD[effect][:seeds]):
        every = {"seed": seed, "spread": spread}
        for batch in (512, 4096):
            for name, overrides in VARIANTS.items():
                sharp = SHARPNESS[effect][name] * (batch / 512) ** (effect / 2)
                accuracy = ACCURACY[name] if effect else 50.0
                plant(folder, accuracy, *overrides, f"batch={batch}", sharpness=sharp, **FIGURES[effect], **every)
            for lr in (0.02, 0.1):
                where = ("+experiment=why_rates", f"batch={batch}", f"lr={lr}")
                plant(folder, 50.0, *where, sharpness=100 * lr**-effect, **every)
        plant(folder, 20.0, "+experiment=why_growing_batch", **every)
        plant(folder, 20.0 if effect >= 0 else 30.0, "+experiment=why_falling_rate", **every)
    return folder


def judged(folder, label=FULL):
    table = make("why_claims", load(folder))
    return {claim["claim"]: finding for source, claim, finding in table.rows if source == label}


@pytest.fixture(scope="module")
def true(tmp_path_factory):
    return world(tmp_path_factory.mktemp("true"), 1)


def test_every_claim_holds_where_its_effect_is_planted(true):
    found = judged(true)
    assert len(found) == 10
    assert {claim: one.verdict for claim, one in found.items()} == dict.fromkeys(found, HOLDS)
    assert {one.n for one in found.values()} == {"3"}


def test_none_holds_where_the_reverse_is(tmp_path):
    assert {claim for claim, one in judged(world(tmp_path, -1)).items() if one.verdict != FAILS} == set()


def test_none_is_decided_where_there_is_no_effect(tmp_path):
    found = judged(world(tmp_path, 0))
    assert {claim for claim, one in found.items() if one.verdict != OPEN} == set()
    assert found["sharper at the end means lower test accuracy"].figures.startswith("no pair to compare; 12 pairs left")


def test_two_seeds_decide_nothing(tmp_path):
    found = judged(world(tmp_path, 1, seeds=2))
    assert {one.verdict for one in found.values()} == {OPEN}
    assert all("3 runs of each side" in one.missing for one in found.values())


def test_without_runs_every_claim_says_what_is_missing(tmp_path):
    (tmp_path / "runs").mkdir()
    for label in (FULL, SMALL):
        found = judged(tmp_path, label)
        assert {(one.verdict, one.figures, one.n) for one in found.values()} == {(OPEN, "no run", "0")}
        assert all("any run at" in one.missing for one in found.values())
    assert len(found) == 8  # those of initial rates and of a growing batch have no run among the small ones


def test_the_figures_are_those_of_the_records(true):
    """The interval by hand: LARS's early sharpness is four times TVLARS's, in decades, with the seeds' spread."""
    one = judged(true)["warm-up LARS is sharper than TVLARS early on"]
    spread = [math.log10(value) for value in SPREAD[1]]
    first = [math.log10(400) + value for value in spread]
    second = [math.log10(100) + value for value in spread]
    known = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert f"{math.log10(4):+.2f} decades" in one.figures
    assert one.interval.startswith(f"{known.low:+.2f} to {known.high:+.2f}")
    change = judged(true)["micro-batched batch norm changes the gradient"]
    assert f"{10 * statistics.fmean(SPREAD[1]):+.2f} %" in change.figures


def test_a_run_that_diverged_has_no_sharpness_at_the_end_and_is_no_minimum(tmp_path):
    for seed, spread in enumerate(SPREAD[1]):
        for name in ("LARS with warm-up", "TVLARS", "Nesterov"):
            lost = {"status": "diverged"} if name == "TVLARS" and seed == 2 else {}
            where = (*VARIANTS[name], "batch=512")
            looked(tmp_path, 60.0, *where, seed=seed, sharpness=SHARPNESS[1][name] * spread, **lost)
    table = make("why_claims", load(tmp_path))
    arms = table.arms[FULL]
    assert len(arms.values("end_sharpness", "TVLARS", 512)) == 2
    assert len(arms.values("early_sharpness", "TVLARS", 512)) == 3  # it got so far
    assert sorted(arms.values("accuracy", "TVLARS", 512)) == [10.0, 60.0, 60.0]
    finding = RULES["sharper_is_worse"](arms, variants=["LARS with warm-up", "TVLARS", "Nesterov"])
    assert "2 pairs left out: one of the two does not train" in finding.figures


def test_runs_on_other_data_are_no_part_of_it(true, tmp_path):
    world(tmp_path, 1, seeds=2)
    where = (*VARIANTS["TVLARS"], "batch=512")
    looked(tmp_path, 60.0, *where, seed=2, fingerprint="e" * 16, sharpness=1e6)
    spec = specs.read("table", "why_claims")
    arms = Arms(load(tmp_path).runs, spec["variants"], [512, 4096], "test_accuracy")
    assert len(arms.values("end_sharpness", "TVLARS", 512)) == 2
    assert arms.notes == ["1 runs on other data or of another length or precision are left out"]


def test_what_probes_of_other_settings_saw_is_no_part_of_it(tmp_path):
    world(tmp_path, 1)
    where = (*VARIANTS["TVLARS"], "batch=512")
    plant(tmp_path, 60.0, *where, "probe.images=2000", seed=3, spread=1.0, sharpness=1e6)
    plant(tmp_path, 60.0, *where, "probe.updates=7", seed=4, spread=1.0, sharpness=100.0)  # when, not what
    table = make("why_claims", load(tmp_path))
    assert len(table.arms[FULL].values("accuracy", "TVLARS", 512)) == 5
    assert max(table.arms[FULL].values("early_sharpness", "TVLARS", 512)) < 2.1
    assert len(table.arms[FULL].values("early_sharpness", "TVLARS", 512)) == 4
    assert table.arms[FULL].notes == ["what probes of other settings saw in 1 runs is left out"]
    assert "Probes: curvature of 64 images, gradient noise of 1,024, micro-batches of 64." in table.caption(FULL)


def test_what_several_machines_ran_is_said_once_and_every_machine_named(tmp_path):
    config = runtime.settle(configure(*VARIANTS["Nesterov"], "batch=512"))
    for seed, machine in enumerate(("one machine", "another")):
        planted.plant(tmp_path, replace(config, seed=seed), 60.0, made_by={"device_name": machine})
    planted.plant(tmp_path, replace(config, seed=2), 60.0, made_by={"device_name": "another"}, fingerprint="a" * 16)
    said = make("why_claims", load(tmp_path)).caption(FULL)
    assert said.count("resnet18 on") == 2  # one for each set of pixels
    assert said.count(f"(pixels {'f' * 16}), 10 epochs, fp32, another, one machine.") == 1


def test_the_temperature_shown_is_that_of_the_median_layer(tmp_path):
    for optimizer in ("lars", "nesterov"):
        words = ["probes=[noise_scale]", "probe.noise_images=12", "probe.micro_batch=6"]
        run_tiny(tmp_path, f"optimizer={optimizer}", *words)
    for run in load(tmp_path).runs.to_dict("records"):
        looks = Looks.of(run)
        whole, layers = (dict(looks.series("noise_scale", name)) for name in ("temperature", "layer_temperature"))
        if run["optimizer.name"] == "nesterov":
            assert layers == whole and whole
        else:
            heats = records.read(run["path"]).epochs[-1]["noise_scale"]["by_layer"]["temperature"]
            assert layers[looks.steps] == statistics.median(heats) < whole[looks.steps] / 10


def test_the_page_tells_every_claim_in_order_and_links_each_run(true, capsys):
    assert main(["why", "--results-dir", str(true)]) == 0
    assert main(["tables", "why_claims", "--results-dir", str(true)]) == 0
    assert main(["plots", "fig_sharpness", "fig_noise_scale", "--results-dir", str(true)]) == 0
    capsys.readouterr()
    before = (true / "WHY.md").read_text()
    assert "not drawn yet: `lbt plots fig_sharpness`" in before
    main(["why", "--results-dir", str(true)])
    page = (true / "WHY.md").read_text()
    claims = specs.read("table", "why_claims")["claims"]
    heads = re.findall(r"^## (\d+)\. ", page, flags=re.MULTILINE)
    assert heads == [str(number) for number in range(1, len(claims) + 1)]
    targets = re.findall(r"\]\(([\w./]+)\)", page)
    assert {one for one in targets if one.endswith(".jsonl")} == {
        path.relative_to(true).as_posix() for path in (true / "runs").rglob("*.jsonl")
    }
    assert all((true / one).exists() for one in targets)
    assert "](figures/fig_sharpness.svg)" in page and "](tables/why_claims.md)" in page
    assert "lbt train -m +experiment=why_sharpness_small`" in page and "experiment=why_rates`" not in page
    assert "](WHY.md)" in (true / "README.md").read_text()
    with (true / "tables" / "why_claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    of_first = rows[0]["runs"].split()
    assert len(of_first) == 12 and {f"{one}.jsonl" for one in of_first} < {one.rpartition("/")[2] for one in targets}


def test_each_measure_is_read_from_what_the_probes_record(tmp_path):
    words = ["probes=[sharpness,noise_scale,batch_norm,stratified]", "probe_every=1", "layer_norms=1", "epochs=5"]
    small = ["probe.images=12", "probe.noise_images=12", "probe.micro_batch=6"]
    path = run_tiny(tmp_path, "optimizer=lars", *words, *small).path
    (run,) = load(tmp_path).runs.to_dict("records")
    looks, lines = Looks.of(run), records.read(path).epochs
    assert looks.steps == 15 and [step for step, _ in looks.series("sharpness", "lambda_max")] == [0, 3, 6, 9, 12, 15]
    found = {name: measure.of(looks) for name, measure in MEASURES.items()}
    assert None not in found.values()
    assert 10 ** found["end_sharpness"] == pytest.approx(lines[-1]["sharpness"]["lambda_max"])
    assert 10 ** found["early_sharpness"] == pytest.approx(lines[0]["sharpness"]["lambda_max"])
    norms = np.log10([row for line in lines for row in line["layer_norms"]["lgn"]])
    assert found["gradient_drop"] == pytest.approx(norms[3:].mean() - norms[:3].mean())
    seen = [line["batch_norm"] for line in lines]  # without that before the first update
    assert found["batch_norm_change"] == pytest.approx(100 * statistics.fmean(one["change"] for one in seen))
