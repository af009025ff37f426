import inspect
import itertools
import json
import math
import re

import pytest
import torch
from support import configure

from lbt import build, optim, records, runtime
from lbt.config import CONFIG_DIR, Config, scaling_factor, seconds, table_lr
from lbt.config.groups import choices
from lbt.errors import UserError
from lbt.identity import from_json, identity, identity_of, run_id, to_json
from lbt.models import MODELS
from lbt.schedules import SCHEDULES
from lbt.tasks import TASKS

PAPER = {512: [1, 2, 3], 1024: [2, 3, 4], 16384: [15, 17, 19]}


@pytest.mark.parametrize("protocol", choices("protocol"))
@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_every_optimizer_composes_and_builds_under_every_protocol(optimizer, protocol):
    build.validate(configure(f"optimizer={optimizer}", f"protocol={protocol}"))


def has_workers(name):
    return getattr(optim.get(configure(f"optimizer={name}").optimizer["name"]), "local_gradients", False)


@pytest.mark.parametrize("inside", [name for name in choices("optimizer") if name != "sam" and not has_workers(name)])
def test_sam_is_around_any_optimizer_with_its_rate_schedule_and_settings(inside):
    alone = configure(f"optimizer={inside}", "batch=4096")
    config = configure("optimizer=sam", f"optimizer@optimizer.base={inside}", "batch=4096")
    assert config.optimizer["base"] == alone.optimizer
    assert (config.peak_lr, config.schedule) == (alone.peak_lr, alone.schedule)
    parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))]
    sam, other = (build.optimizer(c, parameters, steps=[7] * c.epochs) for c in (config, alone))
    for group, wanted in zip(sam.inner.param_groups, other.param_groups, strict=True):
        assert {key: group[key] for key in wanted if key != "step"} == {k: v for k, v in wanted.items() if k != "step"}


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("schedule", "data", "model", "task") for choice in choices(group)],
)
def test_every_choice_composes_and_builds(group, choice):
    needed = ["model.arch=resnet18"] if choice in ("torchvision", "timm") and group == "model" else []
    build.validate(configure(f"{group}={choice}", *needed))


def test_the_readmes_example_is_the_papers_setting():
    config = configure("optimizer=tvlars", "batch=16384")
    assert (config.data.name, config.model["name"], config.model["stem"], config.epochs) == (
        "cifar10", "resnet18", "imagenet", 100,
    )  # fmt: skip
    assert config.lr == 17 and config.peak_lr == 17 * 64
    assert config.schedule["name"] == "constant"
    optimizer = config.optimizer
    assert (optimizer["alpha"], optimizer["lam"], optimizer["delay_epochs"]) == (1.0, 1e-3, 10)
    assert optimizer["floor"] == pytest.approx(0.001 * 64)
    assert (optimizer["momentum"], optimizer["weight_decay"], optimizer["eta"]) == (0.9, 5e-4, 1e-3)


def test_released_protocol_switches_what_the_released_code_does_differently():
    optimizer = configure("optimizer=tvlars", "batch=16384", "protocol=released").optimizer
    assert configure("optimizer=tvlars", "batch=16384", "protocol=released").peak_lr == 17
    assert configure("optimizer=lars", "batch=16384", "protocol=released").peak_lr == 17 * 64
    wanted = {"alpha": 0.1, "delay_epochs": None, "floor": 0.0, "phi_scope": "adapted", "norm_clamp": 10.0}
    assert {key: optimizer[key] for key in wanted} == wanted
    assert optimizer["denominator"] == "joint"


def test_one_switch_of_a_protocol_changes_alone():
    paper = configure("optimizer=tvlars").optimizer
    switched = configure("optimizer=tvlars", "protocol.tvlars_alpha=0.1").optimizer
    assert {key for key in paper if paper[key] != switched[key]} == {"alpha"}


def test_short_trainings_shorten_warmup_and_delay():
    assert configure("epochs=10").schedule["warmup"] == pytest.approx(2)
    assert configure("epochs=100").schedule["warmup"] == 20
    assert configure("epochs=10", "optimizer=tvlars").optimizer["delay_epochs"] == pytest.approx(1)


@pytest.mark.parametrize(("rank", "rate"), [(None, 17), (0, 15), (2, 19)])
def test_lr_comes_from_the_protocols_table(rank, rate):
    assert table_lr(PAPER, 16384, rank) == rate


def test_lr_of_another_batch_is_scaled_by_the_square_root_from_the_nearest():
    assert table_lr(PAPER, 256, None) == pytest.approx(2 / math.sqrt(2))
    assert table_lr(PAPER, 65536, 2) == pytest.approx(19 * 2)
    assert table_lr(PAPER, 8192, 0) == pytest.approx(15 / math.sqrt(2))  # nearer to 16384 than to 1024


def test_rates_that_are_the_same_at_every_batch_of_the_table_are_so_between_them():
    assert configure("protocol=ladder", "optimizer=lars", "batch=777", "lr_rank=1").lr == 0.3
    assert table_lr({512: [0.1]}, 2048, 0) == 0.2  # of one batch alone nothing is known


@pytest.mark.parametrize("task", ["masked_language", "sequence_classification"])
def test_lambs_rate_on_text_is_not_that_of_images(task):
    words = "data=pydocs", "model=bert_tiny", f"task={task}", "optimizer=lamb"
    assert configure(*words, "batch=65536").peak_lr == pytest.approx(0.006)
    assert configure(*words, "batch=4096", "protocol=ladder").peak_lr == pytest.approx(0.0015)
    assert configure(*words, "batch=4096", "lr=0.1", "lr_scaling=none").peak_lr == 0.1


def test_scaling_rules():
    assert [scaling_factor(rule, 1024) for rule in ("none", "sqrt", "linear")] == [1, 2, 4]


def test_durations():
    assert [seconds(text) for text in (None, 90, "90", "90s", "1.5m", "2h")] == [None, 90, 90, 90, 90, 7200]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=abc", "batch=abc: expected a whole number"),
        ("batch=0", "batch=0: expected a whole number, 1 or more"),
        ("epochs=1.5", "epochs=1.5: expected a whole number"),
        ("epochs=0", "epochs=0"),
        ("seed=-1", "seed=-1: expected 0 or more"),
        ("lr=fast", "lr=fast: expected a number"),
        ("lr=-1", "lr=-1.0: expected a positive number"),
        ("warmup=200", "warmup=200: expected 0 to 100 epochs, the length of the training"),
        ("micro_batch=0", "micro_batch=0: expected 1 to 512, the batch"),
        ("micro_batch=1024", "micro_batch=1024: expected 1 to 512, the batch"),
        ("precision=bf61", 'precision=bf61: no such choice; did you mean "bf16"?'),
        ("lr_scaling=liner", 'lr_scaling=liner: no such choice; did you mean "linear"?'),
        ("data.val=1", "data.val=1: expected a share"),
        ("time_budget=soon", "time_budget=soon: expected a duration such as 90s, 9m or 1h"),
        ("wandb.mode=on", "wandb.mode=on: no such choice"),
        ("deterministic=3", "deterministic=3: expected true or false"),
        ("lr_rank=7", "lr_rank=7: the protocol's table has the ranks 0 to 2"),
        ("optimizer.eta=high", "optimizer.eta=high: expected a number"),
        ("optimizer.denominator=some", "some"),
        ("model.stem=cifr", "cifr"),
        ("data.augment=flop", "data.augment=flop"),
        ("optimizer.momentum=-1", "momentum"),
    ],
)
def test_mistakes_are_one_line_that_names_the_setting(override, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        build.validate(configure(override))
    assert "\n" not in str(caught.value)


def test_lr_rank_without_effect_is_refused():
    with pytest.raises(UserError, match="lr_rank=1: has no effect"):
        configure("optimizer=nesterov", "lr_rank=1")
    with pytest.raises(UserError, match="lr_rank=1: has no effect"):
        configure("optimizer=lars", "lr=0.3", "lr_rank=1")


def test_identity_ignores_where_and_how_a_run_is_executed():
    same = ["device=cpu", "results_dir=elsewhere", "data.root=/data", "wandb.mode=offline", "time_budget=1h"]
    assert identity(configure()) == identity(configure(*same))
    assert identity(configure("lr_rank=1")) == identity(configure())  # the middle one by default


@pytest.mark.parametrize(
    "override",
    ["seed=1", "batch=1024", "lr=1.5", "optimizer.eta=0.002", "micro_batch=64", "precision=fp32", "model.stem=cifar",
     "data.val=0.1", "data.last_batch=drop", "task.label_smoothing=0.1", "protocol=released", "epochs=99",
     "schedule.warmup=3"],
)  # fmt: skip
def test_identity_contains_what_decides_the_numbers(override):
    assert identity(configure("precision=bf16")) != identity(configure("precision=bf16", override))


@pytest.mark.parametrize("setting", ["bias_lr_factor", "optimizer.delay_epochs"])
def test_zero_is_not_null_where_null_means_something_else(setting):
    zero, null = (configure("optimizer=tvlars", f"{setting}={value}") for value in (0, "null"))
    assert identity(zero) != identity(null)
    assert identity(from_json(json.loads(json.dumps(to_json(zero))))) == identity(zero)


@pytest.mark.parametrize("words", [["optimizer=lars"], ["optimizer=sam", "optimizer@optimizer.base=lamb"]])
def test_kernels_that_compute_the_same_are_one_run_and_stand_in_the_record(words):
    inside = "optimizer.base" if "optimizer=sam" in words else "optimizer"
    off, on = (configure(*words, f"{inside}.fused={value}") for value in ("false", "true"))
    assert identity(off) == identity(on)
    settings = to_json(on)["optimizer"]
    assert settings.get("base", settings)["fused"] is True


def test_zero_is_a_value_inside_another_optimizer_too():
    words = ["optimizer=sam", "optimizer@optimizer.base=tvlars"]
    zero, null = (configure(*words, f"optimizer.base.delay_epochs={value}") for value in (0, "null"))
    assert identity(zero) != identity(null)


def test_where_zero_may_be_said_and_null_too_the_schema_says_which_of_them_is_off():
    """A number that may be null takes no 0, or is declared to mean something by it."""
    for name, field in Config.__dataclass_fields__.items():
        if "None" not in str(field.type) or not {"int", "float"} & set(re.findall(r"\w+", str(field.type))):
            continue
        if name in ("time_budget", "lr_rank"):  # no part of the id
            continue
        try:
            zero = identity(configure(f"{name}=0"))
        except UserError:
            continue
        assert zero != identity(configure(f"{name}=null")), name


def test_a_setting_added_later_with_an_off_default_keeps_the_id():
    config = configure()
    before = run_id(identity(config), "f")
    later = Config(**{**vars(config), "optimizer": {**config.optimizer, "new_switch": None, "other": False}})
    assert run_id(identity(later), "f") == before
    changed = Config(**{**vars(config), "optimizer": {**config.optimizer, "new_switch": 1}})
    assert run_id(identity(changed), "f") != before


def test_the_id_depends_on_the_data():
    assert run_id({"seed": 1.0}, "a") != run_id({"seed": 1.0}, "b")


@pytest.mark.parametrize("overrides", [(), ("optimizer=tvlars",), ("optimizer=lamb", "protocol=released")])
def test_configuration_survives_the_record(overrides):
    config = runtime.settle(configure(*overrides))
    read_back = from_json(json.loads(json.dumps(to_json(config))))
    assert identity(read_back) == identity(config)
    assert read_back.peak_lr == config.peak_lr
    assert read_back.device == config.device


def test_every_committed_record_has_the_id_of_its_configuration():
    results = CONFIG_DIR.parent / "results"
    paths = records.paths(results)
    if not paths:
        pytest.skip("no committed records")
    for path in paths:
        record = records.read(path)
        config, fingerprint = from_json(record.run["config"]), record.run["provenance"]["data_fingerprint"]
        assert run_id(identity(config), fingerprint) == record.run["id"] == path.stem
        assert run_id(identity_of(record.run["config"]), fingerprint) == path.stem


def test_all_settings_of_the_yaml_file_are_in_the_schema():
    fields = set(Config.__dataclass_fields__)
    text = (CONFIG_DIR / "train.yaml").read_text()
    keys = set(re.findall(r"^(\w+):", text, flags=re.MULTILINE)) - {"defaults", "hydra"}
    keys -= {"name"}  # takes the place of `experiment`
    groups = {"protocol", "data", "model", "task", "schedule", "optimizer"}
    assert keys | groups == fields


def test_grid_of_table_1_is_the_published_one():
    import pandas as pd

    published = pd.read_csv(CONFIG_DIR / "table" / "tvlars_table1.csv")
    rates = published.groupby("batch")["lr"].unique()
    for protocol, (batch, row) in itertools.product(("paper", "released"), rates.items()):
        chosen = ("optimizer=lars", f"protocol={protocol}", f"batch={batch}")
        assert [configure(*chosen, f"lr_rank={rank}").lr for rank in range(3)] == sorted(row)


@pytest.mark.parametrize("group", ["optimizer", "schedule", "model", "task"])
def test_a_setting_that_a_file_leaves_out_is_off_unless_it_is_set(group):
    # "Off" values are left out of a run's id: a default that is on must stand in the file, or off would pass for it.
    for choice in choices(group):
        config = configure(f"{group}={choice}")
        settings = {"optimizer": config.optimizer, "schedule": config.schedule, "model": config.model}.get(
            group, config.task
        )
        known = {"optimizer": optim.get, "schedule": SCHEDULES.get, "model": MODELS.get, "task": TASKS.get}[group]
        for name, parameter in inspect.signature(known(settings["name"])).parameters.items():
            given = {name, name.replace("_steps", "_epochs")} & settings.keys()
            if not given and parameter.default is not inspect.Parameter.empty:
                assert not parameter.default, f"{group}={choice}: {name} is {parameter.default} by default"


def test_lamb_is_adam_in_the_released_barlow_twins_alone():
    for task, protocol, wanted in [
        ("classification", "released", False), ("barlow_twins", "paper", False), ("barlow_twins", "released", True),
    ]:  # fmt: skip
        config = configure("optimizer=lamb", f"task={task}", f"protocol={protocol}")
        assert config.optimizer["unit_ratio"] is wanted


def test_a_length_by_batch_is_that_batchs_and_of_no_other():
    words = ("+experiment=reality_check_text_tune", "batch=256")
    assert (configure(*words).epochs, configure(words[0], "batch=4096").epochs) == (19, 60)
    assert configure(words[0], "batch=1000", "epochs=7").epochs == 7
    with pytest.raises(UserError, match=r"batch=1000: a length is stated for 256, 4096; epochs= states one for others"):
        configure(words[0], "batch=1000")
