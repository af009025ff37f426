import json

import pytest
import torch
from support import StopAfter, configure, run_tiny, tiny_config, training

from lbt import build, records
from lbt.errors import UserError
from lbt.identity import identity
from lbt.train import Training
from lbt.train.probes.layer_norms import LayerNorms


def figures(path):
    """A record's numbers without times."""
    return [
        {key: value for key, value in line.items() if not key.startswith("wall_")}
        for line in [*records.read(path).epochs, records.read(path).end["summary"]]
    ]


def without_norms(lines):
    return [{key: value for key, value in line.items() if key != "layer_norms"} for line in lines]


@pytest.mark.parametrize("every", [1, 2, 3, 5, 100])
def test_the_recorded_norms_are_those_of_numpy_in_float64(tmp_path, every):
    options = ["optimizer=lars", "micro_batch=5", "grad_clip=0.5"]
    recorded = records.read(run_tiny(tmp_path, *options, f"layer_norms={every}").path).epochs

    torch.manual_seed(12345)
    made = Training(tiny_config(tmp_path, *options), build.images(tiny_config(tmp_path)), "by-hand")
    wanted = {}
    step = made.update.optimizer.step

    def spy():
        layers = [weight for weight in made.model.parameters() if weight.ndim > 1]
        wanted[made.progress.step] = [
            [float((tensor.detach().numpy().astype("float64") ** 2).sum() ** 0.5) for tensor in tensors]
            for tensors in (layers, [weight.grad for weight in layers])
        ]
        step()

    made.update.optimizer.step = spy
    for _ in range(4):
        for images, labels in made.data.batches():
            made._update(images, labels)
    found = {}
    for line in recorded:
        norms = line["layer_norms"]
        assert all(3 * (line["epoch"] - 1) <= step < 3 * line["epoch"] for step in norms["steps"])
        found |= dict(zip(norms["steps"], zip(norms["lwn"], norms["lgn"], strict=True), strict=True))
    assert sorted(found) == list(range(0, 12, every))
    for step, (lwn, lgn) in found.items():
        assert lwn == pytest.approx(wanted[step][0], rel=1e-4)
        assert lgn == pytest.approx(wanted[step][1], rel=1e-4)
    assert recorded[0]["layer_norms"]["names"] == ["0.weight", "fc.weight"]  # not those of batch norm, not the bias
    assert all("names" not in line["layer_norms"] for line in recorded[1:])


@pytest.mark.parametrize("optimizer", ["tvlars", "lamb", "sam"])
def test_measuring_changes_no_number_of_a_run(tmp_path, optimizer):
    plain = run_tiny(tmp_path, f"optimizer={optimizer}")
    measured = run_tiny(tmp_path, f"optimizer={optimizer}", "layer_norms=2")
    assert measured.id != plain.id
    assert without_norms(figures(measured.path)) == figures(plain.path)


def test_resumed_at_any_step_equals_uninterrupted(tmp_path):
    chosen = ["optimizer=tvlars", "layer_norms=2"]
    whole = run_tiny(tmp_path / "whole", *chosen)
    for updates in range(1, 12):
        run_tiny(tmp_path / str(updates), *chosen, interrupt=StopAfter(updates))
        assert figures(run_tiny(tmp_path / str(updates), *chosen).path) == figures(whole.path)


def test_a_growing_batch_leaves_room_for_every_measurement(tmp_path):
    lines = records.read(run_tiny(tmp_path, "layer_norms=1", "schedule.batch={1:4,3:44}").path).epochs
    assert [len(line["layer_norms"]["steps"]) for line in lines] == [3, 11, 11, 1]


def test_off_is_no_part_of_the_identity_and_on_is():
    assert "layer_norms" not in identity(configure())
    assert identity(configure("layer_norms=10")) == {**identity(configure()), "layer_norms": 10.0}


def test_chosen_by_name_it_is_the_run_of_its_default_interval(tmp_path):
    by_interval, by_name = run_tiny(tmp_path / "1", "layer_norms=10"), run_tiny(tmp_path / "2", "probes=[layer_norms]")
    assert by_name.id == by_interval.id and figures(by_name.path) == figures(by_interval.path)
    configs = [records.read(one.path).run["config"] for one in (by_name, by_interval)]
    assert configs[0] == configs[1] and "probes" not in configs[0]
    both = configure("probes=[layer_norms]", "layer_norms=2")
    assert identity(both) == identity(configure("layer_norms=2"))


@pytest.mark.parametrize("value", ["0", "-1", "often", "2.5"])
def test_a_mistake_is_one_line(value):
    with pytest.raises(UserError, match="layer_norms="):
        configure(f"layer_norms={value}")


def test_a_layer_without_gradient_and_a_diverged_one_are_recorded(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    norms = LayerNorms(model, every=1, most=1)
    model[1].weight.grad = torch.full((2, 2), float("nan"))
    norms.measure(training(tmp_path).update)
    found = norms.read()
    assert found["names"] == ["0.weight", "1.weight"]
    assert json.loads(records.to_line(found))["lgn"] == [[0.0, None]]
    assert norms.read() == {"steps": [], "lwn": [], "lgn": []}
