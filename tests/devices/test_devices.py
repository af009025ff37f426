"""Runs on two and three gloo processes against one: one start of them for all checks."""

import multiprocessing

import pytest
import torch
from exact import config, free_port, numbers, work
from support import StopAfter

import lbt.optim
from lbt import records
from lbt.identity import identity
from lbt.run import run

distributed = pytest.importorskip("torch.distributed")
if not (distributed.is_available() and distributed.is_gloo_available()):
    pytest.skip("needs gloo", allow_module_level=True)

OPTIONS = {
    "shampoo": {"start": 1, "interval": 1, "eps": 1e-3},
    "muon": {"ns_precision": "full"},
    "sam": {"rho": 0.3, "adaptive": True},
    "soap": {"max_precondition_dim": 1},
}
BATCH = {"name": "exact", "norm": "batch"}
GHOST = {"name": "exact", "norm": "ghost", "ghost_size": 4}
VIEWS = {"augment": "barlow_twins"}
TWINS = {"name": "exact_twins", "projector": [6, 5], "probe": {"epochs": 2, "batch": 8}, "knn_k": 3}
# A last batch of two images is next to nothing for a correlation, which then multiplies what rounding makes.
EXACT_TWINS = {
    "data": {**VIEWS, "last_batch": "drop"},
    "task": {**TWINS, "projector_norm": "layer"},
    "epochs": 10,
    "lr": 0.005,
}

WORKERS = {  # six of them: a last batch of two images has none for four
    "onebit_adam": {"freeze_steps": 6},
    "onebit_lamb": {"freeze_steps": 6},
    "slamb": {"k": 0.5, "exchanged_below": 0, "average_steps": 7},
    "agvm": {"base": {"name": "lars", "eta": 0.1}, "interval": 2},
    "jointspar": {"share": 0.5},
    "jointspar_lars": {"base": {"name": "lars", "eta": 0.1}, "share": 0.5},
}


def six(rule, **more):
    return {"workers": 6, "optimizer": {"name": rule, **WORKERS[rule]}, **more}


# What is trained in each way: name -> settings.
CASES = {
    **{
        name: {"optimizer": {"name": name, **OPTIONS.get(name, {})}}
        for name in lbt.optim.names()
        if not getattr(lbt.optim.get(name), "local_gradients", False)
    },
    **{f"{rule}, workers": six(rule) for rule in WORKERS},
    "onebit_adam, workers, batch norm": six("onebit_adam", model=BATCH, micro_batch=2, grad_clip=0.1),
    "slamb, workers, ghost batch norm": six("slamb", model=GHOST),
    "shampoo, blocks": {"optimizer": {"name": "shampoo", **OPTIONS["shampoo"], "block": 5, "interval": 3}},
    "sam around shampoo": {"optimizer": {"name": "sam", "base": {"name": "shampoo", **OPTIONS["shampoo"]}}},
    "micro-batches": {"micro_batch": 5},
    "clipped": {"micro_batch": 5, "grad_clip": 0.1},
    "averaged": {"ema": 0.9, "layer_norms": 1, "model": BATCH},
    "clars, micro-batches": {"micro_batch": 5, "optimizer": {"name": "clars", "eta": 0.1}},
    "stratified, growing": {
        "data": {"stratified": True},
        "schedule": {"name": "constant", "batch": {2: 20}},
        "epochs": 12,
    },
    "batch norm": {"model": BATCH},
    "batch norm, micro-batches": {"micro_batch": 5, "model": BATCH},
    "batch norm, sam": {"micro_batch": 5, "model": BATCH, "optimizer": {"name": "sam", "rho": 0.3}},
    "batch norm, weights apart": {"model": BATCH, "optimizer": {"name": "schedulefree_sgd"}},
    "ghost": {"model": GHOST},
    "ghost, micro-batches": {"micro_batch": 6, "model": GHOST},
    "twins": EXACT_TWINS,
    "twins, micro-batches": {**EXACT_TWINS, "micro_batch": 5},
    "twins, batch norm": {"data": VIEWS, "model": BATCH, "task": TWINS},
    "twins, batch norm, micro-batches": {"data": VIEWS, "micro_batch": 8, "model": BATCH, "task": TWINS},
}
CONTROLS = ["batch norm", "batch norm, micro-batches"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder with what the processes found."""
    folder = tmp_path_factory.mktemp("devices")
    wholes = {"plain": config(folder / "run", epochs=9)}
    wholes |= {rule: config(folder / rule, epochs=9, **six(rule)) for rule in ("onebit_adam", "slamb")}
    for whole in wholes.values():
        assert run(whole, interrupt=StopAfter(8)).status == "interrupted"
    ports = {size: [free_port() for _ in range(1 + len(wholes))] for size in (2, 3)}
    cases = {name: config(folder, **changes) for name, changes in CASES.items()}
    arguments = (ports, cases, CONTROLS, wholes, str(folder))
    multiprocessing.get_context("forkserver").set_forkserver_preload(["lbt.run"])
    torch.multiprocessing.start_processes(work, arguments, 3, start_method="forkserver")
    alone = {}
    for rank in range(3):
        alone |= torch.load(folder / f"alone{rank}.pt", weights_only=True)
    shared = {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=True)
        for size in ports
        for rank in range(size)
    }
    return folder, wholes, alone, shared


def difference(one, other):
    assert one.keys() == other.keys()
    return {name: float((one[name] - other[name]).abs().max() / other[name].abs().max().clamp(min=1.0)) for name in one}


def limit(name, key):
    """How far a case's number may be from one device's; norms are recorded in five digits, scores float32's."""
    bound = 1e-9 if "batch norm" in name or name == "averaged" else 1e-12
    return {"lwn": 1e-4, "lgn": 1e-4, "scores": 1e-6}.get(key.split()[0], bound)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_several_devices_are_one_but_for_rounding(found, name, size):
    _, _, alone, shared = found
    for key, value in difference(shared[size, 0][name], alone[name]).items():
        assert value <= limit(name, key), key
    for rank in range(1, size):
        assert all(torch.equal(value, shared[size, 0][name][key]) for key, value in shared[size, rank][name].items())


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CONTROLS)
def test_control_batch_norm_over_a_devices_own_images_is_another_training(found, name, size):
    _, _, alone, shared = found
    assert max(difference(shared[size, 0][f"local {name}"], alone[name]).values()) > 1e-3


@pytest.mark.parametrize("size", [2, 3])
def test_shampoos_roots_are_shared_out_and_each_device_has_all_of_them(found, size):
    _, _, alone, shared = found
    (whole, one), several = alone["roots"], [shared[size, rank]["roots"] for rank in range(size)]
    computed = [count for count, _ in several]
    assert sum(computed) == whole and min(computed) > 0
    for _, state in several:
        assert max(difference(state, one).values()) <= 1e-12
        assert all(torch.equal(value, several[0][1][key]) for key, value in state.items())


@pytest.mark.parametrize("name", ["plain", "onebit_adam", "slamb"])
def test_a_run_goes_on_on_another_number_of_devices_and_stops_in_all_processes_at_once(found, tmp_path, name):
    folder, wholes, _, _ = found
    told = [(folder / f"stopped-{name}-{size}-{rank}").read_text() for size in (2, 3) for rank in range(size)]
    assert told == ["interrupted 14"] * 2 + ["interrupted 20"] * 3
    ended = run(wholes[name])
    straight = run(config(tmp_path, epochs=9, **({} if name == "plain" else six(name))))
    assert (ended.status, ended.id) == ("done", straight.id)
    for line, wanted in zip(numbers(ended.path), numbers(straight.path), strict=True):
        assert line == pytest.approx(wanted, rel=1e-6)  # test losses are float32's
        assert line["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-12)
    assert "devices" not in records.read(ended.path).run["provenance"]  # it began on one


def test_the_number_of_devices_is_no_part_of_a_run(tmp_path):
    assert identity(config(tmp_path)) == identity(config(tmp_path, devices=3))
