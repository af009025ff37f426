"""configs/audit: every switch can be turned on alone, and changes what its row says and nothing else."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from support import configure, run_tiny, tiny_config

from lbt import build, records, sweep
from lbt.config import CONFIG_DIR
from lbt.config.groups import choices
from lbt.data import load
from lbt.errors import UserError
from lbt.identity import identity
from lbt.report.frame import flatten

ROWS = [name for name in choices("audit") if name != "none"]
# What each row changes in the identity of TVLARS, LARS, LAMB (and LARS without warm-up) at batch 1,024, 20 epochs.
CHANGES = {
    "row01_delay": ({"optimizer.delay_epochs": (2, None)}, {}, {}, {}, {}),
    "row02_alpha": ({"optimizer.alpha": (1, 0.1)}, {}, {}, {}, {}),
    "row03_floor": ({"optimizer.floor": (0.004, None)}, {}, {}, {}, {}),
    "row04_phi_scope": ({"optimizer.phi_scope": ("all", "adapted")}, {}, {}, {}, {}),
    "row05_norm_clamp": ({"optimizer.norm_clamp": (None, 10)}, {}, {}, {}, {}),
    "row06_denominator": (
        {"optimizer.denominator": ("bare", "joint")}, {"optimizer.denominator": ("bare", "joint")}, {},
        {"optimizer.denominator": ("bare", "joint")}, {"optimizer.denominator": ("bare", "joint")},
    ),
    "row07_scaling": ({"lr_scaling": ("linear", "none")}, {}, {}, {}, {}),
    "row07_one_rate": ({"lr_scaling": ("linear", "none")},) * 5,
    "row08_lamb": (
        {}, {},
        {
            "optimizer.bias_correction": (True, None), "optimizer.norm_clamp": (None, 10),
            "optimizer.exclude_1d": (True, None),
        },
        {}, {},
    ),
    "row09_cosine_period": ({}, {}, {}, {}, {"schedule.period_epochs": (None, 100)}),
    "row10_nowa": ({}, {}, {}, {"schedule.end": (None, 1)}, {}),
    "row11_batch_norm": ({"model.norm": ("batch", "ghost"), "model.ghost_size": (None, 256)},) * 5,
    "row12_init": ({"model.init": (None, "xavier_uniform")},) * 5,
    "row13_scored_part": ({"data.test_every": (None, 4)},) * 5,
    "row14_probe_mode": ({}, {}, {}, {}, {"task.probe.mode": ("eval", "train")}),
    "row15_test_transform": ({}, {}, {}, {}, {"task.probe.test_augment": ("none", "resized_crop_flip")}),
    "row16_probe_schedule": ({}, {}, {}, {}, {"task.probe.period_steps": (None, 100)}),
    "row21_nowa_scaling": ({}, {}, {}, {"lr_scaling": ("linear", "none")}, {}),
    "row22_first_update": (
        {}, {"schedule.lag": (None, 1)}, {"schedule.lag": (None, 1)}, {}, {"schedule.lag": (None, 1)},
    ),
    "row23_probe_decay": ({}, {}, {}, {}, {"task.probe.weight_decay": (1e-6, 5e-4)}),
    "row17_last_batch": ({"data.last_batch": ("keep", "drop")},) * 5,
}  # fmt: skip
BASES = (
    ["optimizer=tvlars"], ["optimizer=lars"], ["optimizer=lamb"], ["optimizer=lars", "schedule=nowa"],
    ["optimizer=lars", "task=barlow_twins"],
)  # fmt: skip


def metadata(name):
    return OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "audit" / f"{name}.yaml"))["audit"]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(name):
    for base, wanted in zip(BASES, CHANGES.get(name, ({},) * 5), strict=True):
        shared = [*base, "batch=1024", "epochs=20", "precision=fp32", "device=cpu"]
        before, after = (dict(flatten(identity(configure(*shared, *more)))) for more in ([], [f"audit={name}"]))
        found = {key: (before.get(key), after.get(key)) for key in before.keys() | after.keys()}
        changed = {key: values for key, values in found.items() if values[0] != values[1]}
        assert changed.keys() == wanted.keys(), base
        for key, values in wanted.items():
            assert changed[key] == pytest.approx(values), key
        build.validate(configure(*shared, f"audit={name}"))


def test_all_rows_are_there_and_each_is_a_switch_or_says_why_not():
    rows = {name: metadata(name) for name in ROWS}
    assert {about["row"] for about in rows.values()} == set(range(1, 24))
    for name, about in rows.items():
        assert {"title", "paper", "released", "predicted"} < about.keys()
        assert name.startswith(f"row{about['row']:02d}_")
        settings = OmegaConf.load(CONFIG_DIR / "audit" / f"{name}.yaml").keys() - {"audit"}
        assert ("switch" in about, "documented" in about) == (bool(settings), not settings)


def test_all_switches_of_the_text_together_are_the_released_protocol():
    rows = {*range(1, 11), 21, 22, 23}
    released = [name for name in CHANGES if int(name[3:5]) in rows]
    released.remove("row07_one_rate")
    protocol = {}
    for name in released:
        protocol |= OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "audit" / f"{name}.yaml")).get("protocol", {})
    texts = {key: json.dumps(value).replace('"', "") for key, value in protocol.items()}
    switches = [f"protocol.{key}={text}" for key, text in texts.items()]
    for base in BASES[:4]:  # Barlow Twins' correlation of a smaller last batch and its probe's images have no row
        switched, whole = (identity(configure(*base, *more)) for more in (switches, ["protocol=released"]))
        assert {**switched, "protocol": None} == {**whole, "protocol": None}


@pytest.mark.parametrize(
    ("experiment", "batches", "rows"),
    [
        ("tvlars_audit", {1024, 16384}, 12),
        ("tvlars_audit_lars_lamb", {1024, 16384}, 5),
        ("tvlars_audit_nowa", {1024, 16384}, 3),
        ("tvlars_audit_bt", {1024}, 6),
    ],
)
def test_the_audits_grids_have_three_seeds_of_every_row(experiment, batches, rows):
    found = sweep.grid([f"+experiment={experiment}"])
    cells = {}
    for job in found:
        (audit,) = [text.removeprefix("audit=") for text in job.overrides if text.startswith("audit=")]
        place = (audit, job.config.optimizer["name"], job.config.batch)
        cells.setdefault(place, []).append(job.config.seed)
    assert all(sorted(seeds) == [0, 1, 2] for seeds in cells.values())
    assert {batch for _, _, batch in cells} == batches
    assert len({audit for audit, _, _ in cells}) == rows
    for _, optimizer, batch in cells:
        assert ("none", optimizer, batch) in cells
    assert {job.config.epochs for job in found} == {20}


def test_one_image_in_four_is_scored_and_the_training_stays(tmp_path):
    whole = records.read(run_tiny(tmp_path).path)
    part = records.read(run_tiny(tmp_path, "data.test_every=4").path)
    assert [line["train_loss"] for line in part.epochs] == [line["train_loss"] for line in whole.epochs]
    assert [line["test_loss"] for line in part.epochs] != [line["test_loss"] for line in whole.epochs]
    made_by, before = part.run["provenance"], whole.run["provenance"]
    assert (made_by["test_images"], before["test_images"]) == (4, 16)
    assert made_by["classes"] == before["classes"] == len(load("synthetic", None).classes)
    assert made_by["data_fingerprint"] == before["data_fingerprint"]
    assert made_by["data"] == f"{before['data']}, one test image in 4 scored"
    config = tiny_config(tmp_path, "data.test_every=5")
    full = load("synthetic", None, **config.data.options)
    assert torch.equal(build.images(config).test_labels, full.test_labels[[0, 5, 10, 15]])
    assert torch.equal(build.images(config).test_images, full.test_images[[0, 5, 10, 15]])
    with pytest.raises(UserError, match=r"data\.test_every=1"):
        tiny_config(tmp_path, "data.test_every=1")
