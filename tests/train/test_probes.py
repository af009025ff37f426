"""The probe protocol, by a probe of this file's own."""

import pytest
import torch
from support import StopAfter, configure, figures, run_tiny, tiny_config

from lbt import build, records
from lbt.errors import UserError
from lbt.identity import identity
from lbt.profile import profile
from lbt.records import places
from lbt.run import run
from lbt.session.console import ConsoleReporter
from lbt.train import Training
from lbt.train.probes import PROBES


class LargestGradient:
    """The largest entry of the gradient, at every other update; it stays on the device until it is read."""

    obstacle = "it counts on the host"

    def __init__(self, config, model, most):
        self.found = torch.zeros(most, device=next(model.parameters()).device)
        self.count = 0

    def due(self, step):
        return step % 2 == 1

    def measure(self, update):
        entries = [parameter.grad.abs().max() for parameter in update.model.parameters()]
        self.found[self.count].copy_(torch.stack(entries).max())
        self.count += 1

    def read(self):
        found, self.count = self.found[: self.count].tolist(), 0
        return {"each": found, "last": found[-1] if found else None}

    def state_dict(self):
        return {"found": self.found[: self.count].clone()}

    def load_state_dict(self, state):
        self.count = len(state["found"])
        self.found[: self.count] = state["found"]


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(PROBES, "largest_gradient", LargestGradient)


PROBED = "probes=[largest_gradient]"


def without(lines):
    return [{key: value for key, value in line.items() if key != "largest_gradient"} for line in lines]


def test_its_readings_are_in_the_epochs_lines_and_nothing_else_changes(tmp_path):
    plain, probed = run_tiny(tmp_path / "plain"), run_tiny(tmp_path / "probed", PROBED)
    assert probed.id == plain.id
    assert without(figures(probed.path)) == figures(plain.path)
    assert records.read(probed.path).run["config"]["probes"] == ["largest_gradient"]

    torch.manual_seed(12345)
    made, wanted = Training(tiny_config(tmp_path), build.images(tiny_config(tmp_path)), "by-hand"), []
    for _ in range(4):
        for images, labels in made.data.batches():
            made._update(images, labels)  # leaves its gradient where it was
            wanted.append(max(parameter.grad.abs().max().item() for parameter in made.model.parameters()))
    found = [line["largest_gradient"] for line in records.read(probed.path).epochs]
    assert [len(one["each"]) for one in found] == [1, 2, 1, 2]  # 3 updates an epoch
    assert [value for one in found for value in one["each"]] == wanted[1::2]


def test_it_survives_an_interruption_at_any_step(tmp_path):
    words = [PROBED, "layer_norms=2"]
    whole = run_tiny(tmp_path / "whole", *words)
    assert {"largest_gradient", "layer_norms"} <= figures(whole.path)[0].keys()
    for updates in range(1, 12):
        folder = tmp_path / str(updates)
        stopped = run_tiny(folder, *words, interrupt=StopAfter(updates))
        state = torch.load(places.checkpoint_of(folder, stopped.id), weights_only=True)
        assert state["update"]["probes"].keys() == {"largest_gradient", "layer_norms"}
        assert figures(run_tiny(folder, *words).path) == figures(whole.path)


def test_one_that_is_asked_for_half_way_begins_there(tmp_path):
    whole = run_tiny(tmp_path / "whole", PROBED)
    stopped = run_tiny(tmp_path / "part", interrupt=StopAfter(6))
    resumed = run_tiny(tmp_path / "part", PROBED)
    assert resumed.id == stopped.id
    found, wanted = figures(resumed.path), figures(whole.path)
    assert without(found) == without(wanted)
    assert "largest_gradient" not in found[0] and found[2:] == wanted[2:]
    run_tiny(tmp_path / "other", PROBED, interrupt=StopAfter(4))
    assert figures(run_tiny(tmp_path / "other").path)[1:] == without(wanted)[1:]  # and is dropped half way


def test_a_finished_run_is_not_made_again_for_it_and_that_is_said(tmp_path, capsys):
    before = run_tiny(tmp_path)
    again = run(tiny_config(tmp_path, PROBED), reporter=ConsoleReporter())
    assert again.recorded_before and again.path == before.path
    assert "made without probes=[largest_gradient]" in capsys.readouterr().out
    run(tiny_config(tmp_path), reporter=ConsoleReporter())
    assert "made without" not in capsys.readouterr().out


def test_it_says_why_no_graph_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr("lbt.train.update.Update.device", torch.device("cuda"))
    made = Training(tiny_config(tmp_path, PROBED, "cuda_graph=true"), build.images(tiny_config(tmp_path)), "test")
    assert made.graph.state == LargestGradient.obstacle


def test_a_run_with_it_can_be_profiled(tmp_path, monkeypatch):
    monkeypatch.setattr(LargestGradient, "due", lambda self, step: True)  # there is room for an epoch's updates alone
    assert profile(tiny_config(tmp_path, PROBED), images=44).epochs == 1


def test_no_probe_is_no_part_of_a_runs_identity():
    assert identity(configure(PROBED)) == identity(configure())


@pytest.mark.parametrize(("word", "said"), [("[layer_norm]", 'did you mean "layer_norms"'), ("3", "probes=3")])
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, word, said):
    with pytest.raises(UserError, match=said) as caught:
        run_tiny(tmp_path / "results", f"probes={word}")
    assert "\n" not in str(caught.value) and not (tmp_path / "results").exists()
