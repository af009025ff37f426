import math
import re
from dataclasses import replace
from functools import cache

import pytest

from lbt import records, runtime, sweep
from lbt.cli import main
from lbt.config import CONFIG_DIR, resolve
from lbt.identity import identity, run_id, to_json
from lbt.report.audit import markdown, switch_effects
from lbt.report.frame import load

PIXELS = "a" * 16


@cache
def compose(experiment, *overrides):
    return runtime.settle(resolve(sweep.compose([f"+experiment={experiment}", *overrides])))


def make(results_dir, accuracy, experiment, *overrides, seed=0, status="done", fingerprint=PIXELS, **known):
    """Writes a record as a run of this experiment's configuration would have left it."""
    config = replace(compose(experiment, *overrides), seed=seed)
    name = run_id(identity(config), fingerprint)
    made_by = {
        "lbt": "0.1.0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.11.0", "device_name": "a machine",
        "data": f"data {fingerprint[0]}", "data_fingerprint": fingerprint,
        **known,
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


def bounds(line):
    """The interval a line of the page shows."""
    return tuple(map(float, re.search(r"\[(.+), (.+)\]", line).groups()))


DUNNETT = 2.88 * math.sqrt(2 / 3)  # of three rows and 8 degrees of freedom (Dunnett 1964), every variance 1, n = 3


def test_a_planted_effect_is_found_with_its_sign(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [85.0, 86.0, 87.0], "batch=1024", "audit=row02_alpha")
    make_all(tmp_path, [75.0, 76.0, 77.0], "batch=1024", "audit=row05_norm_clamp")
    make_all(tmp_path, [82.0, 83.0, 84.0], "batch=1024", "audit=row03_floor")
    text = markdown(load(tmp_path))
    (first, second) = lines(text, "2. ")
    assert first.startswith("| tvlars | 1,024 | 12 | 20 | 81.00 ± 1.00 (n=3) | 86.00 ± 1.00 (n=3) | +5.00 [")
    assert first.endswith(": higher |")
    assert bounds(first) == pytest.approx((5 - DUNNETT, 5 + DUNNETT), abs=0.02)
    assert lines(text, "5. ")[0].endswith(": lower |")
    assert bounds(lines(text, "5. ")[0]) == pytest.approx((-5 - DUNNETT, -5 + DUNNETT), abs=0.02)
    assert lines(text, "3. ")[0].endswith(": no effect shown |")  # +2.00
    assert second == "| tvlars | 16,384 | 1088 | 20 | - | - | not measured yet |"
    assert "Not measured yet: `lbt train -m +experiment=tvlars_audit`" in section(text, "1. ")
    assert "12 runs of 20 epochs, resnet18 on data a (pixels aaaaaaaaaaaaaaaa); lambda of TVLARS 0.001; its" in text
    seen = [line.split(" | ")[0] for line in lines(text, "At a glance")]
    assert seen == ["| 2. Alpha", "| 3. Floor", "| 5. Clamped norms"]


def test_a_row_alone_with_its_base_has_students_interval(tmp_path):
    """Pooled: variances 1 and 16 of three each, standard error sqrt(17/3), 4 degrees of freedom, t(0.975) = 2.776."""
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [86.0, 90.0, 94.0], "batch=1024", "audit=row02_alpha")
    half = 2.776 * math.sqrt(17 / 2 * 2 / 3)
    assert bounds(lines(markdown(load(tmp_path)), "2. ")[0]) == pytest.approx((9 - half, 9 + half), abs=0.02)


def test_more_rows_on_one_base_widen_each_interval(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [82.4, 83.4, 84.4], "batch=1024", "audit=row02_alpha")
    assert lines(markdown(load(tmp_path)), "2. ")[0].endswith(": higher |")  # +2.4, t(0.975, 4) sqrt(2/3) = 2.27
    for row, value in (("row01_delay", 81.0), ("row03_floor", 80.5), ("row05_norm_clamp", 80.8)):
        make_all(tmp_path, [value - 1.2, value, value + 1.2], "batch=1024", f"audit={row}")
    assert lines(markdown(load(tmp_path)), "2. ")[0].endswith(": no effect shown |")


def test_one_seed_is_too_few(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [90.0], "batch=1024", "audit=row02_alpha")
    (line, _) = lines(markdown(load(tmp_path)), "2. ")
    assert line.endswith("| 90.00 (n=1) | +9.00 (n too small for an interval) |")


def test_runs_that_do_not_train_have_no_interval_and_widen_none(tmp_path):
    make_all(tmp_path, [80.0, 81.0, 82.0], "batch=1024")
    make_all(tmp_path, [85.0, 86.0, 87.0], "batch=1024", "audit=row02_alpha")
    make_all(tmp_path, [10.3, 10.5, 10.0], "batch=1024", "audit=row03_floor")
    text = markdown(load(tmp_path))
    assert lines(text, "3. ")[0].endswith(
        "| -70.73 (runs that do not train: 0 of 3 without, 3 of 3 with; no interval) |"
    )
    low, high = bounds(lines(text, "2. ")[0])
    assert high - low == pytest.approx(2 * 2.776 * math.sqrt(2 / 3), abs=0.02)  # as if row 3 were not there


def test_diverged_runs_count_as_chance_and_a_gain_over_them_is_none(tmp_path):
    """(70 + 71 + 10) / 3 = 50.33, whatever accuracy the diverged run was left with."""
    make_all(tmp_path, [33.0, 34.0, 35.0], "batch=16384", status="diverged")
    make_all(tmp_path, [70.0, 71.0], "batch=16384", "audit=row07_scaling")
    make(tmp_path, 33.0, "tvlars_audit", "batch=16384", "audit=row07_scaling", seed=2, status="diverged")
    assert lines(markdown(load(tmp_path)), "7. Where batch/256 enters: TVLARS")[1] == (
        "| tvlars | 16,384 | 1088 | 20 | 3 diverged | 50.33 ± 34.93 (n=3, 1 diverged at 10 %) "
        "| +40.33 (no gain: runs that do not train: 3 of 3 without, 1 of 3 with; no interval) |"
    )


def test_scoring_a_part_is_shown_as_its_sampling_error(tmp_path):
    """sqrt(0.5 * 0.5 / 2,500) is 1 %; of a quarter against the whole sqrt(3/4) of it. It is no part of the pool."""
    make_all(tmp_path, [49.0, 50.0, 51.0], "batch=1024", test_images=10_000)
    make_all(tmp_path, [54.0, 55.0, 56.0], "batch=1024", "audit=row02_alpha", test_images=10_000)
    make_all(tmp_path, [40.0, 49.0, 58.0], "batch=1024", "audit=row13_scored_part", test_images=2_500)
    text = markdown(load(tmp_path))
    said = lines(text, "13. ")[0].split(" | ")[-1]
    assert said == (
        "-1.00: sampling error of 2,500 of 10,000 images, the same in every run (binomial standard error 1.00; 0.87 "
        "against all of them): within two of it |"
    )
    assert said in lines(text, "At a glance")[1]
    low, high = bounds(lines(text, "2. ")[0])
    assert high - low == pytest.approx(2 * 2.776 * math.sqrt(2 / 3), abs=0.02)


def test_the_page_names_the_rows_of_the_released_protocol(tmp_path):
    """The text's numbers are those that the protocol's own file gives beside its settings."""
    content = (CONFIG_DIR / "protocol" / "released.yaml").read_text()
    rows = {int(number) for number in re.findall(r"# \((\d+)\)", content)}
    text = " ".join(markdown(load(tmp_path)).split())
    ((first, last, *others),) = re.findall(r"rows (\d+) to (\d+), (\d+) to (\d+) and (\d+) to (\d+) together", text)
    named = set(range(int(first), int(last) + 1))
    for low, high in zip(others[::2], others[1::2], strict=True):
        named |= set(range(int(low), int(high) + 1))
    assert rows - {17} == named  # 17: the divisor of its last batch; keeping that batch is no switch of the protocol
    assert {21, 22, 23} <= named


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
    effects = {line.precision: line.difference for line in found if line.base.runs}
    assert effects == {"bf16": pytest.approx(1.0), "fp32": pytest.approx(2.0)}


def test_damaged_records_are_named(tmp_path, capsys):
    make_all(tmp_path, [80.0, 81.0], "batch=1024")
    path = next((tmp_path / "runs" / "copied").iterdir())
    path.write_text(path.read_text().replace("80.0", "99.0").replace("81.0", "99.0"))
    assert main(["audit", "--results-dir", str(tmp_path)]) == 0
    assert f"left out: {path}: edited" in capsys.readouterr().err
    assert f"- left out: {path}: edited" in (tmp_path / "AUDIT.md").read_text()
