import errno
import math
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from support import StopAfter, figures, process, run_tiny, script, tiny_config, training

import lbt.train
from lbt import build, records, runtime
from lbt.data import resident
from lbt.errors import UserError
from lbt.records import places
from lbt.report.frame import load
from lbt.run import run
from lbt.session.console import ConsoleReporter
from lbt.tasks import Classification
from lbt.train import Training, checkpoint
from lbt.train.executor import Executor
from lbt.train.sets import evaluation_batch

OPTIMIZERS = ["tvlars", "lamb", "nesterov", "adamw"]


def test_a_run_learns_and_leaves_a_complete_record(tmp_path):
    outcome = run_tiny(tmp_path, "optimizer=adam", "lr=0.2", "epochs=30", "data.augment=none")
    record = records.read(outcome.path)
    assert outcome.path == tmp_path / "runs" / "adhoc" / f"{outcome.id}.jsonl"
    assert outcome.status == record.status == "done"
    assert [line["epoch"] for line in record.epochs] == list(range(1, 31))
    assert [line["step"] for line in record.epochs] == [3 * epoch for epoch in range(1, 31)]
    assert record.epochs[-1]["train_loss"] < 0.7 * record.epochs[0]["train_loss"]
    assert record.end["summary"]["test_accuracy"] == record.epochs[-1]["test_accuracy"]
    made_by = record.run["provenance"]
    assert made_by["torch"] == torch.__version__ and made_by["train_images"] == 44
    assert made_by["data_fingerprint"] and made_by["data"].startswith("synthetic")
    assert not places.checkpoint_of(tmp_path, outcome.id).exists()


def test_a_finished_run_is_not_executed_again(tmp_path):
    first = run_tiny(tmp_path)
    before = first.path.read_bytes()
    second = run_tiny(tmp_path, "time_budget=1h", "deterministic=true")
    assert second.recorded_before and second.summary == first.summary and second.path == first.path
    assert first.path.read_bytes() == before


@pytest.mark.parametrize("left", ["interrupted", "damaged", "another run's"])
def test_a_run_finished_elsewhere_is_not_executed_again_whatever_another_copy_says(tmp_path, left):
    first = run_tiny(tmp_path, "seed=1") if left == "another run's" else run_tiny(tmp_path, interrupt=StopAfter(5))
    finished = run_tiny(tmp_path / "elsewhere")
    copies = [tmp_path / "runs" / folder / finished.path.name for folder in ("adhoc", "copied")]
    copies[1].parent.mkdir()
    content = first.path.read_bytes()
    copies[0].write_bytes(b"no record\n" * 2 if left == "damaged" else content)
    copies[1].write_bytes(finished.path.read_bytes())
    again = run_tiny(tmp_path)
    assert again.recorded_before and (again.path, again.summary) == (copies[1], finished.summary)


def test_a_record_under_another_runs_name_does_not_stand_for_it(tmp_path):
    first, other = run_tiny(tmp_path), run_tiny(tmp_path, "seed=1")
    summary = first.summary["train_loss"]
    first.path.write_bytes(other.path.read_bytes())
    again = run_tiny(tmp_path)
    assert not again.recorded_before and again.summary["train_loss"] == summary


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_at_any_step_equals_uninterrupted(tmp_path, optimizer):
    whole = run_tiny(tmp_path / "whole", f"optimizer={optimizer}")
    for updates in range(1, 12):  # every step of 4 epochs of 3 updates but the last one's end
        folder = tmp_path / str(updates)
        stopped = run_tiny(folder, f"optimizer={optimizer}", interrupt=StopAfter(updates))
        assert stopped.status == records.read(stopped.path).status == "interrupted"
        assert stopped.summary["steps"] == updates
        resumed = run_tiny(folder, f"optimizer={optimizer}")
        assert resumed.status == "done" and not resumed.recorded_before
        assert figures(resumed.path) == figures(whole.path)


def test_interrupted_again_and_again_equals_uninterrupted(tmp_path):
    whole = run_tiny(tmp_path / "whole", "optimizer=tvlars")
    for _ in range(11):
        run_tiny(tmp_path / "parts", "optimizer=tvlars", interrupt=StopAfter(1))
    resumed = run_tiny(tmp_path / "parts", "optimizer=tvlars")
    assert figures(resumed.path) == figures(whole.path)


@pytest.mark.parametrize("left_out", ["generator", "optimizer"])
def test_control_resuming_without_a_part_of_the_state_differs(tmp_path, monkeypatch, left_out):
    whole = run_tiny(tmp_path / "whole", "optimizer=tvlars")
    run_tiny(tmp_path / "part", "optimizer=tvlars", interrupt=StopAfter(4))
    if left_out == "generator":
        load = resident.ResidentData.load_state_dict

        def without_generator(self, state):
            load(self, {**state, "generator": self.generator.get_state()})

        monkeypatch.setattr(resident.ResidentData, "load_state_dict", without_generator)
    else:
        monkeypatch.setattr(torch.optim.Optimizer, "load_state_dict", lambda self, state: None)
    resumed = run_tiny(tmp_path / "part", "optimizer=tvlars")
    assert figures(resumed.path) != figures(whole.path)


def test_another_runs_checkpoint_is_not_taken_up(tmp_path):
    one, other = (run_tiny(tmp_path, f"seed={seed}", interrupt=StopAfter(4)) for seed in (0, 1))
    path = places.checkpoint_of(tmp_path, one.id)
    path.write_bytes(places.checkpoint_of(tmp_path, other.id).read_bytes())
    before = one.path.read_bytes()
    with pytest.raises(UserError, match="is another run's"):
        run_tiny(tmp_path, "seed=0")
    assert one.path.read_bytes() == before


def test_a_damaged_checkpoint_starts_the_run_again(tmp_path, capsys):
    whole = run_tiny(tmp_path / "whole")
    stopped = run_tiny(tmp_path / "part", interrupt=StopAfter(5))
    path = places.checkpoint_of(tmp_path / "part", stopped.id)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = run(tiny_config(tmp_path / "part"), reporter=ConsoleReporter())
    assert figures(again.path) == figures(whole.path)
    assert f"{path}: cannot be read; the run starts again" in capsys.readouterr().out.replace("\n", "")


def test_another_kind_of_device_neither_goes_on_nor_starts_again(tmp_path):
    """Random numbers of a GPU are none of a CPU's; to start again would replace what the GPU has trained."""
    stopped = run_tiny(tmp_path, interrupt=StopAfter(7))
    path, record = places.checkpoint_of(tmp_path, stopped.id), stopped.path.read_bytes()
    torch.save({**torch.load(path, weights_only=True), "device": "cuda"}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"was written on cuda, and this is cpu: device=cuda goes on with the run"):
        run_tiny(tmp_path)
    assert (path.read_bytes(), stopped.path.read_bytes()) == (before, record)


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path, monkeypatch, capsys):
    whole = run_tiny(tmp_path / "whole")
    kept = checkpoint.save

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr("lbt.train.LONGEST_SECONDS", 0.0)
    found = run(tiny_config(tmp_path / "full"), reporter=ConsoleReporter())
    said = capsys.readouterr()
    assert found.status == "done" and figures(found.path) == figures(whole.path)
    assert "no checkpoint: " in said.out and "No space left" in said.out and not said.err
    stopped = run_tiny(tmp_path / "stopped", interrupt=StopAfter(5))
    assert stopped.status == "interrupted"
    monkeypatch.setattr(checkpoint, "save", kept)
    assert figures(run_tiny(tmp_path / "stopped").path) == figures(whole.path)


def test_a_record_tells_what_went_on_with_it(tmp_path, monkeypatch, capsys):
    """And neither what did not change nor, a second time, what went on before."""
    there = runtime.provenance(torch.device("cpu")) | {"commit": "a" * 40, "dirty": False}
    for step, commit in ((4, "a"), (6, "b"), (8, "b"), (10, "a")):
        monkeypatch.setattr(runtime, "provenance", lambda _, made={**there, "commit": commit * 40}: dict(made))
        interrupt = StopAfter(4 if step == 4 else 2)
        stopped = run(tiny_config(tmp_path), interrupt=interrupt, reporter=ConsoleReporter())
        assert stopped.summary["steps"] == step
    said = capsys.readouterr().out
    assert said.count(f"goes on, though since its beginning commit is {'b' * 40}, was {'a' * 40}") == 2
    entries = records.read(stopped.path).run["provenance"]["resumed"]
    assert [(one["step"], one["commit"][0]) for one in entries] == [(4, "b"), (8, "a")]
    finished = run_tiny(tmp_path)
    (row,) = load(tmp_path).runs.to_dict("records")
    assert finished.status == "done" and row["commit"] == f"{'a' * 10} then {'b' * 10}"


@pytest.mark.parametrize("content", [b"hello world\n" * 9, b"", [1], None])
def test_a_checkpoint_that_is_none_starts_the_run_again(tmp_path, content):
    whole = run_tiny(tmp_path / "whole")
    stopped = run_tiny(tmp_path / "part", interrupt=StopAfter(5))
    path = places.checkpoint_of(tmp_path / "part", stopped.id)
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert figures(run_tiny(tmp_path / "part").path) == figures(whole.path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state["update"].pop("optimizer"),
        lambda state: state["update"]["model"].popitem(),
        *(lambda state, part=part: state.pop(part) for part in ("update", "progress", "data", "random", "lines")),
        *(lambda state, part=part: state.update({part: None}) for part in ("update", "progress", "data", "lines")),
        lambda state: state.update(lines=[]),
        lambda state: state["progress"].update(sums=3),
        lambda state: state.update(schema=1),  # an older version's
    ],
)
def test_a_checkpoint_of_another_version_is_a_mistake_and_kept(tmp_path, edit):
    stopped = run_tiny(tmp_path, interrupt=StopAfter(5))
    path = places.checkpoint_of(tmp_path, stopped.id)
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)
    before = stopped.path.read_bytes()
    with pytest.raises(UserError, match="does not fit this version of lbt; without it the run starts again") as caught:
        run_tiny(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.exists() and stopped.path.read_bytes() == before


def test_one_run_does_not_depend_on_the_run_before_it(tmp_path):
    alone = run_tiny(tmp_path / "alone", "optimizer=lamb")
    run_tiny(tmp_path / "after", "optimizer=tvlars", "seed=7")
    after = run_tiny(tmp_path / "after", "optimizer=lamb")
    assert figures(after.path) == figures(alone.path)


def test_seeds_differ(tmp_path):
    assert figures(run_tiny(tmp_path, "seed=0").path) != figures(run_tiny(tmp_path, "seed=1").path)


def test_an_experiment_has_the_runs_that_were_made_before_it(tmp_path):
    first = run_tiny(tmp_path)
    assert first.path.parent.name == "adhoc"
    config = tiny_config(tmp_path)
    again = [run(replace(config, experiment=name)) for name in ("one", "two", "one", "adhoc")]
    assert all(outcome.recorded_before and outcome.id == first.id for outcome in again)
    found = records.paths(tmp_path)
    assert [path.parent.name for path in found] == ["adhoc", "one", "two"]
    assert len({path.read_bytes() for path in found}) == 1
    assert [path.suffix for folder in (tmp_path / "runs").iterdir() for path in folder.iterdir()] == [".jsonl"] * 3


def test_divergence_in_the_very_last_update_is_divergence(tmp_path):
    outcome = run_tiny(tmp_path, "epochs=1", "batch=44", "optimizer=sgd", "lr=1e38", "schedule=constant")
    (epoch,) = records.read(outcome.path).epochs
    assert math.isfinite(epoch["train_loss"]) and epoch["test_loss"] is None
    assert outcome.status == "diverged"


def test_divergence_ends_the_run_in_its_epoch_and_is_final(tmp_path):
    outcome = run_tiny(tmp_path, "optimizer=sgd", "lr=1e30", "schedule=constant")
    record = records.read(outcome.path)
    assert outcome.status == record.status == "diverged"
    assert len(record.epochs) < 4 and record.epochs[-1]["train_loss"] is None
    assert run_tiny(tmp_path, "optimizer=sgd", "lr=1e30", "schedule=constant").recorded_before


def test_micro_batches_give_the_whole_batchs_gradient_without_batch_norm():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)).double()
    images = torch.randint(0, 256, (22, 3, 8, 8), dtype=torch.uint8)
    labels = torch.randint(0, 5, (22,))
    gradients, losses = [], []
    for size in (None, 22, 5, 1):
        executor = Executor(model, build.task(tiny_config(".")), precision="fp32", micro_batch=size)
        executor._dtype = torch.float64
        executor.autocast = lambda: torch.autocast("cpu", enabled=False)
        model.zero_grad()
        losses.append(executor.backward(images, labels)["loss"].item())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(losses, [losses[0]] * 4, rtol=1e-6, atol=0)
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-6, atol=1e-9)


def test_micro_batches_are_part_of_the_runs_identity(tmp_path):
    assert run_tiny(tmp_path, "micro_batch=8").id != run_tiny(tmp_path).id


class OutOfMemoryAbove:
    """A task whose forward pass fits only so many images."""

    def __init__(self, task, limit):
        self.task, self.limit = task, limit

    def __getattr__(self, name):
        return getattr(self.task, name)

    def forward(self, model, images):
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        return self.task.forward(model, images)


@pytest.mark.parametrize(("limit", "advice"), [(5, 4), (8, 8), (0, 0)])
def test_running_out_of_memory_names_the_largest_micro_batch(tmp_path, monkeypatch, limit, advice):
    task = build.task
    monkeypatch.setattr(build, "task", lambda config: OutOfMemoryAbove(task(config), limit))
    outcome = run_tiny(tmp_path)
    assert outcome.status == records.read(outcome.path).status == "oom"
    assert outcome.summary["largest_micro_batch"] == advice
    monkeypatch.undo()
    assert run_tiny(tmp_path).status == "done"  # it is tried again


def test_a_bug_is_recorded_as_failed_and_tried_again(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Training, "_update", broken)
    outcome = run_tiny(tmp_path)
    assert records.read(outcome.path).status == "failed"
    assert outcome.summary["error"] == "ZeroDivisionError: a bug"
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_tiny(tmp_path).status == "done"


def test_mistakes_write_nothing(tmp_path):
    for override, message in (("batch=4000", "larger than the training set of 44 images"), ("device=cuda", "CUDA")):
        if override == "device=cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(UserError, match=message):
            run_tiny(tmp_path / "results", override)
    assert not (tmp_path / "results").exists()


def test_schedule_and_phi_reach_the_record(tmp_path):
    path = run_tiny(tmp_path, "optimizer=lars", "warmup=2").path
    rates = [line["lr"] for line in records.read(path).epochs]
    peak = records.read(path).run["config"]["peak_lr"]
    assert rates[0] == pytest.approx(peak / 2) and rates[1] == pytest.approx(peak)
    assert rates[3] == pytest.approx(peak * 0.001)

    path = run_tiny(tmp_path, "optimizer=tvlars", "optimizer.lam=0.5", "optimizer.delay_epochs=1").path
    record = records.read(path)
    floor = record.run["config"]["optimizer"]["floor"]
    for line in record.epochs:  # eq. (8): t = updates made before the epoch's last one, d_e = 3 updates
        phi = 1 / (1 + math.exp(0.5 * (line["step"] - 1 - 3))) + floor
        assert line["effective_lr"] == pytest.approx(line["lr"] * phi)


def test_last_batch_can_be_dropped(tmp_path):
    outcome = run_tiny(tmp_path, "data.last_batch=drop")
    assert [line["step"] for line in records.read(outcome.path).epochs] == [2, 4, 6, 8]


def test_validation_split_replaces_the_test_set(tmp_path):
    record = records.read(run_tiny(tmp_path, "data.val=0.25", "batch=8").path)
    assert "val_accuracy" in record.epochs[0] and "test_accuracy" not in record.epochs[0]
    made_by = record.run["provenance"]
    assert made_by["train_images"] + made_by["test_images"] == 44


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_auto_precision_is_recorded_as_what_was_used(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(runtime, "_computes_in_bf16", lambda device: precision == "bf16")
    outcome = run_tiny(tmp_path, "precision=auto")
    assert records.read(outcome.path).run["config"]["precision"] == precision
    assert outcome.id == run_tiny(tmp_path, f"precision={precision}").id


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_a_resumable_run(tmp_path, number, code):
    command = f"""
from support import TINY
from lbt.cli import main
sys.exit(main(["train", *TINY, "epochs=100000", "results_dir={tmp_path}"]))
"""
    process = subprocess.Popen(script(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_epoch(process, tmp_path)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    (path,) = records.paths(tmp_path)
    record = records.read(path)
    assert record.status == "interrupted"
    assert places.checkpoint_of(tmp_path, record.run["id"]).exists()


@pytest.mark.parametrize(("requeues", "code"), [("sys.exit(7)", 7), ("raise RuntimeError('not requeued')", 1)])
def test_a_launchers_signal_is_handed_on_once_the_run_can_be_resumed(tmp_path, requeues, code):
    """As submitit has it: a handler for SIGUSR2 that requeues the job and exits, or raises if it may not."""
    command = f"""
import signal
from lbt import records
from lbt.records import places
from support import TINY
from lbt.cli import main

def requeue(number, frame):
    (path,) = records.paths("{tmp_path}")
    record = records.read(path)
    print(number, record.status, places.checkpoint_of("{tmp_path}", record.run["id"]).exists())
    {requeues}

signal.signal(signal.SIGUSR2, requeue)
sys.exit(main(["train", *TINY, "epochs=100000", "results_dir={tmp_path}"]))
"""
    process = subprocess.Popen(script(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_epoch(process, tmp_path)
    process.send_signal(signal.SIGUSR2)
    said, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error and ("lbt: not requeued" in error) == (code == 1)
    assert said.splitlines()[-1] == f"{int(signal.SIGUSR2)} interrupted True"


def wait_for_epoch(process, results_dir):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in records.paths(results_dir):
            if len(path.read_text().splitlines()) >= 2:
                return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("no epoch in two minutes")


def twenty_epochs(folder):
    """A run with a checkpoint an epoch."""
    lbt.train.CHECKPOINT_SECONDS = 0.0
    run_tiny(folder, "epochs=20", "optimizer=tvlars")


def test_kill_9_then_the_same_command_gives_the_same_numbers(tmp_path):
    process(twenty_epochs, tmp_path / "whole").join()
    for updates in (3, 8, 15):  # killed three times, each time after some more lines
        killed = process(twenty_epochs, tmp_path / "killed")
        while killed.is_alive():
            found = records.paths(tmp_path / "killed")
            if found and found[0].read_text().count("\n") > updates:
                killed.kill()
                break
        killed.join()
    process(twenty_epochs, tmp_path / "killed").join()
    (whole,), (killed,) = records.paths(tmp_path / "whole"), records.paths(tmp_path / "killed")
    assert records.read(whole).status == "done" and figures(killed) == figures(whole)
    leftovers = [path.suffix for path in (tmp_path / "killed" / "work").iterdir()]
    assert ".pt" not in leftovers


def execute_grid(folder, told):
    """Runs a grid's runs one after another, and writes what became of each."""
    ran = [run_tiny(folder, f"seed={seed}") for seed in range(8)]
    told.write_text(" ".join(f"{outcome.id}:{int(outcome.recorded_before)}:{outcome.status}" for outcome in ran))


def test_two_processes_racing_for_one_grid_execute_each_run_once(tmp_path):
    told = [tmp_path / name for name in ("one", "other")]
    both = [process(execute_grid, tmp_path / "results", path) for path in told]
    for each in both:
        each.join(120)
    said = [line.split(":") for path in told for line in path.read_text().split()]
    executed = [run for run, before, status in said if before == "0" and status == "done"]
    assert len(executed) == len(set(executed)) == 8
    assert {status for _, _, status in said} <= {"done", "running"}
    assert all(records.read(path).status == "done" for path in records.paths(tmp_path / "results"))


def test_training_imports_no_mirror_and_nothing_that_only_reports_need(tmp_path):
    command = f"""
refused = ["wandb", "tensorboard", "pandas", "matplotlib", "sklearn", "lbt.report"]
sys.modules |= dict.fromkeys(refused)  # importing one would fail
from support import run_tiny
assert run_tiny({str(tmp_path)!r}).status == "done"
"""
    subprocess.run(script(command), check=True)


class SeesMicroBatches(torch.optim.SGD):
    """Remembers what the loop hands over."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.shares, self.modes = [], []

    def observe_micro_batch(self, share):
        self.shares.append(share)

    def eval(self):
        self.modes.append("eval")

    def train(self):
        self.modes.append("train")


class Twice(torch.optim.SGD):
    """Has the gradients computed anew, and remembers the statistics of batch norm around that."""

    needs_closure = True

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.losses, self.norm = [], None

    def step(self, closure):
        before = [self.norm.running_mean.clone(), self.norm.running_var.clone(), self.norm.num_batches_tracked.clone()]
        gradients = [parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]
        with torch.enable_grad():
            self.losses.append(closure())
        again = [parameter.grad for group in self.param_groups for parameter in group["params"]]
        torch.testing.assert_close(again, gradients)  # the weights have not moved
        after = [self.norm.running_mean, self.norm.running_var, self.norm.num_batches_tracked]
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        super().step()


def test_an_optimizer_sees_its_micro_batches_and_is_told_of_evaluation(tmp_path):
    made = training(tmp_path, "micro_batch=5", optimizer=SeesMicroBatches)
    for images, labels in made.data.batches():
        made._update(images, labels)
    assert made.update.optimizer.shares == pytest.approx(
        [5 / 16, 5 / 16, 5 / 16, 1 / 16] * 2 + [5 / 12, 5 / 12, 2 / 12]
    )
    made._evaluate(0.0, 44)
    assert made.update.optimizer.modes == ["eval", "train"]


class Stretches(torch.optim.SGD):
    """Uses other weights than it trains on: ten times the convolution's."""

    def eval(self):
        self.param_groups[0]["params"][0].data.mul_(10)

    def train(self):
        self.param_groups[0]["params"][0].data.div_(10)


def scores(made):
    return made.update.scores(made.sets, made.data, epoch=1, epochs=4)


def test_weights_that_were_not_trained_on_are_scored_with_batch_norm_statistics_of_their_own(tmp_path):
    plain, made = training(tmp_path), training(tmp_path, optimizer=Stretches)
    before = made.model[1].running_var.clone()
    with plain.update.executor.statistics_of(plain.data.examples(44)):
        wanted = plain.update.executor.evaluate(plain.sets, epoch=1, epochs=4)
    # Batch norm undoes the factor where its statistics are those of the stretched weights.
    assert scores(made) == pytest.approx(wanted, rel=1e-3)
    assert scores(plain) != pytest.approx(wanted, rel=1e-3)
    torch.testing.assert_close(made.model[1].running_var, before, rtol=0, atol=0)
    assert made.model[1].momentum == 0.1


def test_batch_norm_statistics_do_not_stumble_over_a_lone_last_image(monkeypatch):
    monkeypatch.setattr("lbt.train.sets.EVALUATION_BATCH", 4)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(3))
    images = torch.randint(0, 256, (9, 3, 2, 2), dtype=torch.uint8)
    made = Executor(model, Classification(), precision="fp32", micro_batch=None)
    with made.statistics_of(images):
        expected = (made.input(images[:4]).mean((0, 2, 3)) + made.input(images[4:8]).mean((0, 2, 3))) / 2
        torch.testing.assert_close(model[1].running_mean, expected)


def test_gradients_computed_anew_leave_batch_norms_statistics_alone(tmp_path):
    made = training(tmp_path, optimizer=Twice)
    made.update.optimizer.norm = made.model[1]
    for images, labels in made.data.batches():
        made._update(images, labels)
    assert len(made.update.optimizer.losses) == made.model[1].num_batches_tracked == 3
    assert made.progress.sums["loss"].item() / made.progress.seen == pytest.approx(2.3, rel=0.2)  # counted once


def test_gradient_clipping_bounds_the_global_norm(tmp_path):
    made = training(tmp_path, "grad_clip=0.01")
    for images, labels in made.data.batches():
        made._update(images, labels)
        norm = torch.cat([parameter.grad.flatten() for parameter in made.model.parameters()]).norm()
        assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_the_moving_average_is_what_is_evaluated_and_survives_a_resume(tmp_path):
    made = training(tmp_path, "ema=0.5", "optimizer=sgd", "lr=1")
    weights = []
    for images, labels in made.data.batches():
        made._update(images, labels)
        weights.append(made.model[5].weight.detach().clone())
    wanted = weights[0]  # the first update is taken over
    for newer in weights[1:]:
        wanted = 0.5 * wanted + 0.5 * newer
    torch.testing.assert_close(made.update.average.module[5].weight, wanted)
    whole = run_tiny(tmp_path / "whole", "ema=0.9")
    run_tiny(tmp_path / "part", "ema=0.9", interrupt=StopAfter(5))
    assert figures(run_tiny(tmp_path / "part", "ema=0.9").path) == figures(whole.path)
    assert figures(whole.path)[0]["train_loss"] == figures(run_tiny(tmp_path).path)[0]["train_loss"]
    assert figures(whole.path)[-1]["test_loss"] != figures(run_tiny(tmp_path).path)[-1]["test_loss"]


def test_the_batch_grows_at_the_given_epochs_and_survives_a_resume(tmp_path):
    grow = ["schedule.batch={1:22,3:44}"]
    whole = run_tiny(tmp_path / "whole", *grow)
    lines = records.read(whole.path).epochs
    assert [line["batch"] for line in lines] == [16, 22, 22, 44]
    assert [line["step"] for line in lines] == [3, 5, 7, 8]
    assert lines[-1]["lr"] == pytest.approx(whole.config.peak_lr * 0.001)  # the schedule ends with the last update
    for updates in range(1, 8):
        run_tiny(tmp_path / str(updates), *grow, interrupt=StopAfter(updates))
        assert figures(run_tiny(tmp_path / str(updates), *grow).path) == figures(whole.path)


def test_what_is_said_in_epochs_stays_in_epochs_while_the_batch_grows(tmp_path):
    """With the first epochs' updates for all, a milestone after the growth would come late or never."""
    steps = ["schedule=warmup_step", "schedule.milestones=[1,3]", "warmup=0", "schedule.batch={1:22,2:44}"]
    outcome = run_tiny(tmp_path, *steps)
    lines = records.read(outcome.path).epochs
    assert [line["step"] for line in lines] == [3, 5, 6, 7]
    peak = outcome.config.peak_lr
    assert [line["lr"] / peak for line in lines] == pytest.approx([1, 0.1, 0.1, 0.01])
    longer = ["warmup=2.5", "optimizer=tvlars", "optimizer.delay_epochs=3", "schedule=warmup_cosine"]
    config = tiny_config(tmp_path, *longer)
    parameters = [torch.nn.Parameter(torch.ones(2, 2))]
    assert build.optimizer(config, parameters, steps=[4, 2, 2, 2]).param_groups[0]["delay_steps"] == 8
    factor = build.schedule(config, steps=[4, 2, 2, 2])
    assert [factor(step) for step in (5, 6)] == pytest.approx([6 / 7, 1])


@pytest.mark.parametrize("value", ["{0:32}", "{4:32}", "{1:0}", "{1:big}", "{1:4000}"])
def test_a_batch_schedule_that_cannot_be_is_one_line(tmp_path, value):
    with pytest.raises(UserError, match=r"batch"):
        run_tiny(tmp_path / "results", f"schedule.batch={value}")
    assert not (tmp_path / "results").exists()


def test_stratified_batches_hold_every_class_in_proportion():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 10)[
        torch.randperm(70, generator=torch.Generator().manual_seed(0))
    ]
    images = torch.zeros(70, 3, 2, 2, dtype=torch.uint8)
    options = {"batch": 7, "last_batch": "keep", "augment": "none", "seed": 0}
    data = resident.ResidentData(images, labels, stratified=True, **options)
    first = [torch.bincount(drawn, minlength=3).tolist() for _, drawn in data.batches()]
    for counts in first:
        assert all(abs(count - wanted) <= 1 for count, wanted in zip(counts, (4, 2, 1), strict=True))
    assert torch.tensor(first).sum(0).tolist() == [40, 20, 10]  # every image once
    balanced = resident.ResidentData(images[:60], torch.arange(60) % 6, stratified=True, **{**options, "batch": 12})
    epochs = [[drawn for _, drawn in balanced.batches()] for _ in range(2)]
    assert all(torch.bincount(drawn).tolist() == [2] * 6 for epoch in epochs for drawn in epoch)
    assert any(not torch.equal(one, other) for one, other in zip(*epochs, strict=True))
    plain = resident.ResidentData(images[:60], torch.arange(60) % 6, **{**options, "batch": 12})
    assert any(torch.bincount(drawn, minlength=6).tolist() != [2] * 6 for _, drawn in plain.batches())


@pytest.mark.parametrize(
    ("shape", "images"),
    [((9, 3, 32, 32), 2000), ((9, 3, 64, 64), 2000), ((9, 2, 3, 224, 224), 163), ((9, 128), 2000), ((9, 2, 512), 500)],
)
def test_an_evaluation_takes_fewer_of_large_samples_at_once(shape, images):
    assert evaluation_batch(torch.empty(shape, device="meta")) == images
