import math
import re
from dataclasses import replace
from functools import cache

import pytest
from scipy import stats

from lbt import records, runtime, sweep
from lbt.cli import main
from lbt.config import CONFIG_DIR, resolve
from lbt.identity import identity, run_id, to_json
from lbt.report.audit import markdown, switch_effects
from lbt.report.audit.switch_effects import effect
from lbt.report.frame import load

PIXELS = "a" * 16


@cache
def compose(experiment, *overrides):
    return runtime.settle(resolve(sweep.compose([f"+experiment={experiment}", *overrides])))


def make(results_dir, accuracy, experiment, *overrides, seed=0, status="done", fingerprint=PIXELS):
    """Writes a record as a run of this experiment's configuration would have left it."""
    config = replace(compose(experiment, *overrides), seed=seed)
    name = run_id(identity(config), fingerprint)
    made_by = {
        "lbt": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.11.0", "device_name": "a machine",
        "data": f"data {fingerprint[0]}", "data_fingerprint": fingerprint,
    }  # fmt: skip
    first = {"kind": "run", "schema": 1, "id": name, "config": to_json(config), "provenance": made_by}
    writer = records.RecordWriter(records.path_of(results_dir, "copied", name), [records.to_line(first)])
    for epoch in range(1, config.epochs + 1):
        writer.append({"kind": "epoch", "epoch": epoch, "step": epoch, "test_accuracy": accuracy})
    writer.end(status, {"epochs": config.epochs, "test_accuracy": accuracy, "wall_seconds": 1.0})


def make_all(results_dir, values, *overrides, experiment="tvlars_audit", **options):
    for seed, value in enumerate(values):
        make(results_dir, value, experiment, *overrides, seed=seed, **options)


def section(text, heading):
    (found,) = [part for part in text.split("\n## ") if part.startswith(heading)]
    return found


def lines(text, heading):
    return [line for line in section(text, heading).splitlines() if line.startswith("| ")][2:]


def test_welchs_interval_of_a_worked_example():
    # sd 1 and 1, n 3 and 3: standard error sqrt(2/3), 4 degrees of freedom, t(0.975) = 2.776
    found = effect([80, 81, 82], [85, 86, 87])
    half = 2.7764451 * math.sqrt(2 / 3)
    assert (found.difference, found.low, found.high) == pytest.approx((5, 5 - half, 5 + half), abs=1e-5)
    other = effect([80.2, 81.9, 79.3, 85.0], [70.1, 69.8])
    interval = stats.ttest_ind([70.1, 69.8], [80.2, 81.9, 79.3, 85.0], equal_var=False).confidence_interval(0.95)
    assert (other.low, other.high) == pytest.approx((interval.low, interval.high))


def test_a_planted_effect_is_found_with_its_sign(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [85.0, 86.0, 87.0], "batch=1024", "audit=row02_alpha")
    make_all(tmp_path, [75.0, 76.0, 77.0], "batch=1024", "audit=row05_norm_clamp")
    make_all(tmp_path, [80.1, 81.4, 82.2], "batch=1024", "audit=row03_floor")
    text = markdown(load(tmp_path))
    assert lines(text, "2. ")[0] == (
        "| tvlars | 1,024 | 12 | 20 | 81.00 ± 1.00 (n=3) | 86.00 ± 1.00 (n=3) | +5.00 [+2.73, +7.27]: higher |"
    )
    assert lines(text, "5. ")[0].endswith("| -5.00 [-7.27, -2.73]: lower |")
    assert lines(text, "3. ")[0].endswith(": no effect shown |")
    assert lines(text, "2. ")[1] == "| tvlars | 16,384 | 1088 | 20 | - | - | not measured yet |"
    assert "Not measured yet: `lbt train -m +experiment=tvlars_audit`" in section(text, "1. ")
    assert "12 runs of 20 epochs, resnet18 on data a (pixels aaaaaaaaaaaaaaaa); lambda of TVLARS 0.001; bf16" in text
    assert lines(text, "At a glance") == [
        "| 2. Alpha | tvlars | 1,024 | 12 | 20 | +5.00 [+2.73, +7.27]: higher |",
        f"| 3. Floor | tvlars | 1,024 | 12 | 20 | {lines(text, '3. ')[0].split(' | ')[6]}",
        "| 5. Clamped norms | tvlars | 1,024 | 12 | 20 | -5.00 [-7.27, -2.73]: lower |",
    ]


def test_one_seed_is_too_few(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [90.0], "batch=1024", "audit=row02_alpha")
    (line, _) = lines(markdown(load(tmp_path)), "2. ")
    assert line.endswith("| 90.00 (n=1) | +9.00 (n too small for an interval) |")


def test_networks_that_stay_at_chance_have_no_spread(tmp_path):
    make_all(tmp_path, [10.0, 10.0], "batch=1024")
    make_all(tmp_path, [10.0, 10.0], "batch=1024", "audit=row02_alpha")
    assert lines(markdown(load(tmp_path)), "2. ")[0].endswith("| +0.00 [+0.00, +0.00]: no effect shown |")


def test_diverged_runs_are_counted_and_not_averaged(tmp_path):
    make_all(tmp_path, [10.0, 10.0, 10.0], "batch=16384", status="diverged")
    make_all(tmp_path, [70.0, 71.0], "batch=16384", "audit=row07_scaling")
    make(tmp_path, 10.0, "tvlars_audit", "batch=16384", "audit=row07_scaling", seed=2, status="diverged")
    assert lines(markdown(load(tmp_path)), "7. Where batch/256 enters: TVLARS")[1] == (
        "| tvlars | 16,384 | 1088 | 20 | 3 diverged | 70.50 ± 0.71 (n=2, 1 diverged) "
        "| no means to compare; diverged: 3 of 3 without, 1 of 3 with |"
    )


def test_each_optimizer_is_compared_with_itself_and_where_the_switch_acts(tmp_path):
    lars_lamb = {"experiment": "tvlars_audit_lars_lamb"}
    make_all(tmp_path, [60.0, 61.0], "batch=1024", "optimizer=lars", **lars_lamb)
    make_all(tmp_path, [30.0, 31.0], "batch=1024", "optimizer=lamb", **lars_lamb)
    make_all(tmp_path, [50.0, 51.0], "batch=1024", "optimizer=lamb", "audit=row08_lamb", **lars_lamb)
    make_all(tmp_path, [66.0, 67.0], "batch=1024", "optimizer=lars", "audit=row06_denominator", **lars_lamb)
    make_all(tmp_path, [40.0, 41.0], "batch=1024", experiment="tvlars_audit_nowa")
    make_all(tmp_path, [20.0, 21.0], "batch=1024", "audit=row10_nowa", experiment="tvlars_audit_nowa")
    text = markdown(load(tmp_path))
    assert [line.split(" | ")[:3] for line in lines(text, "8. ")] == [
        ["| lamb", "1,024", "12"],
        ["| lamb", "16,384", "1088"],
    ]
    assert "+20.00" in lines(text, "8. ")[0]
    optimizers = [line.split(" | ")[0] for line in lines(text, "6. ")]
    assert optimizers == ["| lars", "| lars"] and "+6.00" in lines(text, "6. ")[0]
    assert "Still to run: `lbt train -m +experiment=tvlars_audit`" in section(text, "6. ")
    assert "| 40.50" in lines(text, "10. ")[0] and "-20.00" in lines(text, "10. ")[0]


def test_runs_on_other_pixels_or_of_another_length_are_never_compared(tmp_path):
    make_all(tmp_path, [80.0, 81.0], "batch=1024", fingerprint="b" * 16)
    make_all(tmp_path, [80.0, 81.0], "batch=1024", "epochs=100")
    make_all(tmp_path, [90.0, 91.0], "batch=1024", "audit=row02_alpha")
    found = [line for line in lines(markdown(load(tmp_path)), "2. ") if "1,024" in line]
    assert [line.split(" | ")[4:] for line in found] == [
        ["-", "90.50 ± 0.71 (n=2)", "not measured yet", f"{PIXELS} |"],
        ["80.50 ± 0.71 (n=2)", "-", "not measured yet", f"{'b' * 16} |"],
    ]


def test_short_runs_are_told_apart_from_longer_ones(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [85.0, 86.0, 87.0], "batch=1024", "audit=row02_alpha")
    make_all(tmp_path, [50.0, 51.0, 52.0], experiment="tvlars_audit_short")
    make_all(tmp_path, [40.0, 41.0, 42.0], "audit=row02_alpha", experiment="tvlars_audit_short")
    text = markdown(load(tmp_path))
    effects = {tuple(line.split(" | ")[1:4:2]): line.split(" | ")[6].split()[0] for line in lines(text, "2. ")}
    assert effects == {("512", "2"): "-10.00", ("1,024", "20"): "+5.00", ("16,384", "20"): "not"}
    assert "- 6 runs of 2 epochs" in text and "- 6 runs of 20 epochs" in text and "lambda of TVLARS 0.05" in text
    assert (
        "Not measured yet: `lbt train -m +experiment=tvlars_audit`, `lbt train -m +experiment=tvlars_audit_short`"
        in (section(text, "3. "))
    )


def test_the_command_writes_the_page_with_all_rows_and_real_commands(tmp_path, capsys):
    assert main(["audit", "--results-dir", str(tmp_path)]) == 0
    text = (tmp_path / "AUDIT.md").read_text()
    assert str(tmp_path / "AUDIT.md") in capsys.readouterr().out
    assert {int(row) for row in re.findall(r"^## (\d+)\.", text, flags=re.MULTILINE)} == set(range(1, 24))
    assert "Nothing has been measured yet." in text
    assert text.count("- Not measured yet: `lbt train") == 21
    for experiment in re.findall(r"\+experiment=(\w+)", text):
        assert (CONFIG_DIR / "experiment" / f"{experiment}.yaml").exists()
    assert main(["audit", "--results-dir", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_an_experiment_that_leaves_the_precision_to_the_machine_is_compared(tmp_path):
    """Its grid says `auto`, a record what that became; an effect is of one precision."""
    for precision, gain in (("bf16", 1.0), ("fp32", 2.0)):
        make_all(tmp_path, [80.0, 81.0], "batch=1024", f"precision={precision}")
        with_it = [80.0 + gain, 81.0 + gain]
        make_all(tmp_path, with_it, "batch=1024", f"precision={precision}", "audit=row02_alpha")
    by_id = {run["id"]: run for _, run in load(tmp_path).runs.iterrows()}
    grid = switch_effects.grid("tvlars_audit", "precision=auto")
    found = switch_effects.of_experiment("tvlars_audit", grid, by_id)["row02_alpha"]
    effects = {
        line.precision: effect(line.base.values, line.switched.values).difference for line in found if line.base.runs
    }
    assert effects == {"bf16": pytest.approx(1.0), "fp32": pytest.approx(2.0)}


def test_damaged_records_are_named(tmp_path, capsys):
    make_all(tmp_path, [80.0, 81.0], "batch=1024")
    path = next((tmp_path / "runs" / "copied").iterdir())
    path.write_text(path.read_text().replace("80.0", "99.0").replace("81.0", "99.0"))
    assert main(["audit", "--results-dir", str(tmp_path)]) == 0
    assert f"left out: {path}: edited" in capsys.readouterr().err
    assert f"- left out: {path}: edited" in (tmp_path / "AUDIT.md").read_text()
