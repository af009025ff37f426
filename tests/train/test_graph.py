from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from support import StopAfter, figures, run_tiny, tiny_config, training
from tape import Taped

from lbt import build, records
from lbt.train import Training, graph
from lbt.train.graph import Graphed, GraphedUpdate, host_state
from lbt.train.probes import PROBES

# What a graph changes is the rounding of the learning rate to float32; batch norm and ReLU carry that on.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
REPLAYED = ["tvlars", "lars", "larc", "lamb", "sgd", "nesterov", "adam", "adamw", "muon", "sm3"]


@pytest.fixture(autouse=True)
def _no_earlier_run(monkeypatch):
    monkeypatch.setattr(GraphedUpdate, "last", None)


def test_without_a_gpu_the_plain_loop_runs_and_the_record_says_why(tmp_path):
    plain, asked = run_tiny(tmp_path / "plain"), run_tiny(tmp_path / "asked", "cuda_graph=true")
    assert asked.id == plain.id
    assert asked.summary["cuda_graph"] == "not on a CUDA device" and "cuda_graph" not in plain.summary
    wanted, found = figures(plain.path), figures(asked.path)
    found[-1].pop("cuda_graph")
    assert found == wanted


@pytest.mark.parametrize("optimizer", ["tvlars", "lamb", "sgd", "muon", "sm3", "shampoo"])
def test_host_state_tells_who_counts_on_the_host(tmp_path, optimizer):
    made = training(tmp_path, f"optimizer={optimizer}", "epochs=2")
    seen = []
    for _ in range(2):
        for images, labels in made.data.batches():
            made._update(images, labels)
            seen.append(
                [pair for pair in host_state(made.update.optimizer) if pair[0] != "step" or optimizer == "shampoo"]
            )
    # On a CPU the tensors of our own counters are on the host, too: they were left out above.
    rest = [[(key, value) for key, value in state if key != "lr_factor"] for state in seen]
    assert all(state == rest[1] for state in rest[2:]) is (optimizer != "shampoo")


class Recorded(Graphed):
    """Stands for a CUDA graph on a CPU: a replay calls the function with the graph's own inputs."""

    log: ClassVar[list] = []

    def plain(self, *tensors):
        self.calls += 1
        self.log.append(("plain", len(tensors[0])))
        return self.function(*tensors)

    def capture(self):
        self.log.append(("capture", len(self._inputs[0])))
        self.graph = SimpleNamespace(replay=self._replayed)

    def _replayed(self):
        self.log.append(("replay", len(self._inputs[0])))
        self._outputs = self.function(*self._inputs)


@pytest.mark.parametrize("optimizer", ["lars", "nesterov"])
def test_full_batches_are_replayed_after_the_warm_up_and_others_are_not(tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(graph, "obstacle", lambda update: None)
    monkeypatch.setattr(graph, "Graphed", Recorded)
    monkeypatch.setattr(Recorded, "log", log := [])
    losses = []
    for setting in ("cuda_graph=false", "cuda_graph=true"):
        made = training(tmp_path, f"optimizer={optimizer}", setting, "schedule.batch={3:22}")
        for epoch in range(4):  # three of 16, 16 and 12 images, one of 22 and 22
            made.data.batch = made.batch_of[epoch]
            for images, labels in made.data.batches():
                made._update(images, labels)
        losses.append(made.progress.sums["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert made.graph.state == "captured"
    update = [("plain", 16)] * 3 + [("capture", 16), ("replay", 16)]  # the updates 1, 2, 4 and 5
    # Images are drawn by a graph, too, from update 7 on: first without it, then, at update 8, by it.
    drawn = [("plain", 16), ("replay", 16)], [("capture", 16), ("replay", 16), ("replay", 16)]
    larger = [("plain", 22)] * 3  # images and update of the first such batch, then an update
    assert log == [*update, *drawn[0], *drawn[1], *larger]


class OnTheDevice(torch.optim.Optimizer):
    """Momentum and a correction that counts updates; neither the rate nor the count is read on the host."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "decay": 0.9})
        self.seen = []

    @torch.no_grad()
    def step(self):
        self.seen = []
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"], state["count"] = torch.zeros_like(parameter), torch.zeros(2)
                state["count"] += 1
                state["momentum"].mul_(group["decay"]).add_(parameter.grad)
                parameter.sub_(group["lr"] * state["momentum"] / state["count"].mean().sqrt())
                self.seen.append(parameter.grad.norm().reshape(1))


def taped(tmp_path, *overrides):
    """Returns a training of 5 updates an epoch (one is smaller), its losses by epoch, its last gradient's norms."""
    torch.manual_seed(0)
    made = training(tmp_path, "data.size=76", *overrides, optimizer=OnTheDevice)
    for group in made.update.optimizer.param_groups:
        group["initial_lr"] = made.config.peak_lr / 40
    losses = []
    for epoch in range(4):
        zero(made.progress.sums)
        made.data.batch = made.batch_of[epoch]
        for images, labels in made.data.batches():
            made._update(images, labels)
        losses.append(made.progress.sums["loss"].item())
    return made, losses, torch.cat(made.update.optimizer.seen)


ANOTHER = ["seed=1", "lr=3", "schedule=warmup_polynomial", "epochs=9"]


@pytest.fixture
def captures(monkeypatch):
    """Lets the graphs be tapes and counts them."""
    made, capture = [], Taped.capture
    monkeypatch.setattr(graph, "obstacle", lambda update: None)
    monkeypatch.setattr(graph, "Graphed", Taped)
    monkeypatch.setattr(Taped, "capture", lambda self: (made.append(self), capture(self)))
    return made


@pytest.mark.parametrize("words", [[], ["micro_batch=8"], ["grad_clip=0.1"], ["schedule.batch={2:20}"]])
def test_a_replay_of_addresses_gives_the_plain_updates(tmp_path, captures, words):
    _, wanted, norms = taped(tmp_path, *words)
    made, found, shown = taped(tmp_path, *words, "cuda_graph=true")
    assert made.graph.state == "captured" and captures
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(shown, norms, rtol=1e-3, atol=0)


def test_the_next_run_of_a_kind_uses_the_graphs_again(tmp_path, captures):
    plain, wanted, _ = taped(tmp_path, *ANOTHER)
    for words in [], ["seed=5"], ANOTHER:  # also after one that has only reused them
        made, found, _ = taped(tmp_path, *words, "cuda_graph=true")
    assert made.graph.state == "reused" and len(captures) == 2  # of the first run: of its images and its updates
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(made.model.state_dict(), plain.model.state_dict(), **TOLERANCE)
    scores = [one.update.executor.evaluate(one.sets, epoch=4, epochs=9) for one in (made, plain)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_what_a_checkpoint_takes_of_a_run_with_reused_graphs_is_the_plain_ones(tmp_path, captures):
    plain, _, _ = taped(tmp_path, *ANOTHER)
    taped(tmp_path, "cuda_graph=true")
    made, _, _ = taped(tmp_path, *ANOTHER, "cuda_graph=true")
    assert made.graph.state == "reused"
    for part in ("model", "optimizer", "data"):
        owners = [one.data if part == "data" else getattr(one.update, part) for one in (made, plain)]
        found, wanted = (owner.state_dict() for owner in owners)
        for state in (found, wanted):
            state.pop("param_groups", None)  # a rate is a tensor where graphs are asked for
        torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize(
    "word", ["batch=19", "data.subset=70", "optimizer.momentum=0.5", "grad_clip=1", "micro_batch=8"]
)
def test_a_run_of_another_kind_makes_graphs_of_its_own(tmp_path, captures, word):
    taped(tmp_path, "cuda_graph=true")
    made, found, _ = taped(tmp_path, word, "cuda_graph=true")
    assert made.graph.state == "captured"
    torch.testing.assert_close(found, taped(tmp_path, word)[1], rtol=1e-5, atol=0)


class GradientSum:
    """Adds up the gradient's norms on the device, at every update: a graph may hold it."""

    obstacle = None

    def __init__(self, config, model, most):
        self.total = torch.zeros((), dtype=torch.float64)

    def due(self, step):
        return True

    def measure(self, update):
        for parameter in update.model.parameters():
            self.total.add_(parameter.grad.norm())

    def read(self):
        total = self.total.item()
        self.total.zero_()
        return {"total": total}

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total.copy_(state["total"])


def test_a_probe_that_a_graph_may_hold_is_replayed_and_no_later_run_takes_its_graph(tmp_path, captures, monkeypatch):
    monkeypatch.setitem(PROBES, "gradient_sum", GradientSum)
    probed = "probes=[gradient_sum]"
    wanted = taped(tmp_path, probed)[0].update.readings()["gradient_sum"]["total"]
    for _ in range(2):
        made, _, _ = taped(tmp_path, probed, "cuda_graph=true")
        assert made.graph.state == "captured"
        assert made.update.readings()["gradient_sum"]["total"] == pytest.approx(wanted, rel=1e-4)
    assert taped(tmp_path, "cuda_graph=true")[0].graph.state == "captured"  # the probe's run is of the same kind


def test_a_probe_is_an_obstacle_where_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(PROBES, "gradient_sum", GradientSum)
    monkeypatch.setattr("lbt.train.update.Update.device", torch.device("cuda"))
    assert graph.obstacle(training(tmp_path, "probes=[gradient_sum]").update) is None
    wanted = "the layers' norms are measured between gradient and step"
    assert graph.obstacle(training(tmp_path, "probes=[gradient_sum]", "layer_norms=2").update) == wanted


def cuda_training(tmp_path, *overrides):
    torch.manual_seed(0)
    config = tiny_config(tmp_path, "device=cuda", "data.size=76", *overrides)  # 4 full batches and one of 12
    return Training(config, build.images(config), "test")


def zero(sums):
    """Begins an epoch's sums anew, as the loop does."""
    for total in sums.values():
        total.zero_()


def trained(tmp_path, *overrides, epochs=4):
    """Returns a training after some epochs, and the losses of each."""
    made, losses = cuda_training(tmp_path, *overrides), []
    for _ in range(epochs):
        zero(made.progress.sums)
        for images, labels in made.data.batches():
            made._update(images, labels)
        losses.append(made.progress.sums["loss"].item())
    return made, losses


def numbers(outcome):
    """Every epoch's numbers, without times."""
    return [{key: value for key, value in line.items() if key != "kind"} for line in figures(outcome.path)[:-1]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    @pytest.mark.parametrize("optimizer", REPLAYED)
    def test_replayed_updates_give_the_plain_ones(self, tmp_path, optimizer):
        overrides = [f"optimizer={optimizer}", "lr=0.01", "lr_scaling=none"]
        plain, wanted = trained(tmp_path, *overrides)
        graphed, found = trained(tmp_path, *overrides, "cuda_graph=true")
        assert graphed.graph.state == "captured" and graphed.progress.step == plain.progress.step == 20
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
        torch.testing.assert_close(graphed.model.state_dict(), plain.model.state_dict(), **TOLERANCE)
        for one, other in zip(graphed.update.optimizer.param_groups, plain.update.optimizer.param_groups, strict=True):
            assert float(one["lr"]) == pytest.approx(float(other["lr"]))

    @pytest.mark.parametrize("optimizer", REPLAYED)
    def test_reused_graphs_give_the_plain_updates(self, tmp_path, optimizer):
        settings = [f"optimizer={optimizer}", "lr_scaling=none"]
        plain, wanted = trained(tmp_path, *settings, "lr=0.01", "seed=1")
        trained(tmp_path, *settings, "lr=0.02", "cuda_graph=true")
        reused, found = trained(tmp_path, *settings, "lr=0.01", "seed=1", "cuda_graph=true")
        assert reused.graph.state == "reused"
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
        torch.testing.assert_close(reused.model.state_dict(), plain.model.state_dict(), **TOLERANCE)

    def test_the_same_images_are_drawn(self, tmp_path):
        plain, graphed = cuda_training(tmp_path), cuda_training(tmp_path, "cuda_graph=true")
        for _ in range(4):
            for one, other in zip(plain.data.batches(), graphed.data.batches(), strict=True):
                plain._update(*one), graphed._update(*other)
                assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert graphed.graph._take.graph is not None

    @pytest.mark.parametrize("optimizer", ["sam", "clars", "shampoo"])
    def test_what_cannot_be_replayed_equals_the_plain_loop_and_says_so(self, tmp_path, optimizer):
        _, wanted = trained(tmp_path, f"optimizer={optimizer}")
        made, found = trained(tmp_path, f"optimizer={optimizer}", "cuda_graph=true")
        assert made.graph.state not in ("captured", "not yet")
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)

    def test_a_capture_that_fails_falls_back(self, tmp_path, monkeypatch):
        wanted = trained(tmp_path)[1]
        made = cuda_training(tmp_path, "cuda_graph=true")
        apply = made.graph._update.function

        def reads_back(images, labels):
            apply(images, labels)
            made.progress.sums["loss"].item()

        made.graph._update.function = made.update.apply = reads_back
        losses = []
        for _ in range(4):
            zero(made.progress.sums)
            for images, labels in made.data.batches():
                made._update(images, labels)
            losses.append(made.progress.sums["loss"].item())
        assert made.graph.state.startswith("capture failed")
        torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=0)

    @pytest.mark.parametrize("updates", [2, 4, 7, 11])
    def test_resumed_equals_uninterrupted(self, tmp_path, updates):
        words = ["device=cuda", "data.size=76", "cuda_graph=true", "optimizer=tvlars"]
        whole = run_tiny(tmp_path / "whole", *words)
        assert records.read(whole.path).end["summary"]["cuda_graph"] == "captured"
        run_tiny(tmp_path / "part", *words, interrupt=StopAfter(updates))
        resumed = run_tiny(tmp_path / "part", *words)
        for one, other in zip(numbers(resumed), numbers(whole), strict=True):
            assert one == pytest.approx(other, rel=1e-4)

    def test_trust_ratios_and_gradients_are_those_of_the_last_update(self, tmp_path):
        made, _ = trained(tmp_path, "cuda_graph=true", "optimizer=tvlars")  # its last update was a plain one
        ratios = {}
        for images, labels in made.data.batches():
            made._update(images, labels)
            key = next(iter(made.update.optimizer.trust_ratios()))
            ratios[made.progress.step] = made.update.optimizer.trust_ratios()[key].item()
            norm = key.grad.norm()
            wanted = made.update.optimizer.param_groups[0]["eta"] * key.norm() / norm
            assert ratios[made.progress.step] == pytest.approx(
                wanted.item(), rel=0.3
            )  # weights are those after the update
        assert len(set(ratios.values())) == len(ratios)

    def test_growing_batches_are_captured_anew(self, tmp_path):
        words = ["device=cuda", "data.size=160", "schedule.batch={2:32}", "epochs=5"]
        plain, graphed = run_tiny(tmp_path / "plain", *words), run_tiny(tmp_path / "graph", *words, "cuda_graph=true")
        assert graphed.summary["cuda_graph"] == "captured"
        for one, other in zip(numbers(graphed), numbers(plain), strict=True):
            assert one == pytest.approx(other, rel=1e-3)
