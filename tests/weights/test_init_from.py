"""`init_from`: which tensors a run begins from, and that it is told by what they are."""

import functools
import json
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from support import TINY, run_tiny, tiny, tiny_config, training

from lbt import build, records, runtime, weights
from lbt.cli import main
from lbt.config import resolve
from lbt.errors import UserError
from lbt.identity import from_json, identity, to_json
from lbt.models import MODELS
from lbt.records import places
from lbt.sweep import compose
from lbt.weights import transfer

TWINS = ["task=barlow_twins", "data.augment=barlow_twins", "task.probe.epochs=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with the weights of a classifier and of a backbone, and the ids of their runs."""
    folder = tmp_path_factory.mktemp("source")
    one = run_tiny(folder, "keep=weights", "epochs=1", "seed=7")
    other = run_tiny(folder, "keep=weights", "epochs=1", "seed=7", *TWINS, "task.projector=[6,4]")
    return folder, one.id, other.id


def begun(tmp_path, source, name, *overrides):
    """The weights a training begins with, by name, and what it says of them."""
    made = training_of(tmp_path, f"init_from={places.weights_of(source, name)}", *overrides)
    return made.model.state_dict(), weights.told(made.config, made.model)


def training_of(tmp_path, *overrides):
    from lbt.train import Training

    config = runtime.settle(tiny_config(tmp_path, *overrides))
    return Training(config, build.images(config), "test")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() & other.keys())


def test_a_classifier_of_the_same_classes_is_taken_whole(tmp_path, source):
    folder, classifier, _ = source
    state, said = begun(tmp_path, folder, classifier)
    given = load_file(places.weights_of(folder, classifier))
    assert state.keys() == given.keys() and same(state, given)
    assert said == f"begins from run {classifier}: 8 of its 8 tensors taken"


def test_a_classifier_of_other_classes_begins_as_drawn(tmp_path, source):
    folder, classifier, _ = source
    state, said = begun(tmp_path, folder, classifier, "data.classes=4")
    given = load_file(places.weights_of(folder, classifier))
    drawn = training(tmp_path, "data.classes=4").model.state_dict()
    own = {"fc.weight", "fc.bias"}
    assert state["fc.weight"].shape == (4, 8)
    assert same({name: state[name] for name in own}, drawn)
    assert same({name: state[name] for name in state.keys() - own}, given)
    assert said.endswith("6 of its 8 tensors taken, without fc; fc begins as drawn (10 classes there, 4 here)")


def test_a_backbone_becomes_a_classifier(tmp_path, source):
    folder, _, twins = source
    state, said = begun(tmp_path, folder, twins)
    given = load_file(places.weights_of(folder, twins))
    body = {name.removeprefix("backbone."): given[name] for name in given if name.startswith("backbone.")}
    assert len(body) == 6 and same(state, body)
    assert same({"fc.weight": state["fc.weight"]}, training(tmp_path).model.state_dict())
    assert said.endswith(f"6 of its {len(given)} tensors taken, without projector; fc begins as drawn")


def test_a_classifier_becomes_a_backbone(tmp_path, source):
    folder, classifier, _ = source
    state, said = begun(tmp_path, folder, classifier, *TWINS, "task.projector=[6,4]")
    given = {f"backbone.{name}": one for name, one in load_file(places.weights_of(folder, classifier)).items()}
    drawn = training(tmp_path, *TWINS, "task.projector=[6,4]").model.state_dict()
    assert same(state, given) and same({name: state[name] for name in state if name.startswith("projector")}, drawn)
    assert said.endswith("6 of its 8 tensors taken, without fc; projector begins as drawn")


@pytest.mark.parametrize(("projector", "taken"), [("[6,4]", True), ("[6,5]", False), ("[4]", False)])
def test_a_projector_is_taken_where_all_of_it_fits(tmp_path, source, projector, taken):
    folder, _, twins = source
    state, said = begun(tmp_path, folder, twins, *TWINS, f"task.projector={projector}")
    given = load_file(places.weights_of(folder, twins))
    assert same({name: state[name] for name in state if name.startswith("backbone")}, given)
    name = "projector.0.weight"
    assert (state[name].shape == given[name].shape and torch.equal(state[name], given[name])) is taken
    assert ("projector begins as drawn" in said) is not taken


def test_the_average_and_the_optimizer_begin_from_them(tmp_path, source):
    folder, classifier, _ = source
    given = load_file(places.weights_of(folder, classifier))
    made = training_of(tmp_path, f"init_from={places.weights_of(folder, classifier)}", "ema=0.9")
    assert same(made.update.average.module.state_dict(), given)
    free = training_of(
        tmp_path, f"init_from={places.weights_of(folder, classifier)}", "optimizer=schedulefree_sgd", "lr=1e-12"
    )
    free._update(*next(free.data.batches()))
    with free.update.scored(free.data) as model:
        assert torch.allclose(model.fc.weight, given["fc.weight"], atol=1e-6)


def test_a_run_is_told_by_the_tensors_and_not_by_their_place(tmp_path, source):
    folder, classifier, twins = source
    path, copy, bare = places.weights_of(folder, classifier), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    copy.write_bytes(path.read_bytes())
    save_file(load_file(path), bare)

    plain = tiny_config(tmp_path)

    def what(named, results_dir=tmp_path):
        config = runtime.settle(replace(plain, init_from=str(named), results_dir=str(results_dir)))
        return json.dumps(identity(config), sort_keys=True), json.dumps(to_json(config))

    first = what(classifier[:6], folder)
    assert {what(path), what(copy), what(classifier, folder)} == {first}
    assert what(bare)[0] == first[0]
    assert what(places.weights_of(folder, twins))[0] != first[0]
    assert identity(plain).keys() == json.loads(first[0]).keys() - {"init_from"}
    changed = load_file(path)
    changed["fc.bias"][0] += 1
    save_file(changed, copy)
    assert what(copy)[0] != first[0]


def test_the_record_holds_the_hash_and_the_run_and_no_place(tmp_path, source):
    folder, classifier, _ = source
    path = places.weights_of(folder, classifier)
    outcome, anew = (run_tiny(tmp_path, *begin, "epochs=1") for begin in ([f"init_from={path}"], []))
    assert outcome.id != anew.id and outcome.summary["test_loss"] != anew.summary["test_loss"]
    run = records.read(outcome.path).run
    assert run["config"]["init_from"] == {"sha256": weights.read(path).sha256, "run": classifier}
    assert str(folder) not in outcome.path.read_text()
    assert identity(from_json(run["config"])) == identity(outcome.config)
    assert run_tiny(tmp_path, f"init_from={path}", "epochs=1").recorded_before
    assert "init_from" not in records.read(records.find(folder, classifier)).run["config"]


def test_a_sweep_over_them_is_found_finished_and_shown(tmp_path, source, capsys):
    folder, classifier, twins = source
    files = ",".join(str(places.weights_of(folder, name)) for name in (classifier, twins))
    words = [*TINY, "epochs=1", f"results_dir={tmp_path}", f"init_from=null,{files}"]
    run_tiny(tmp_path, "epochs=1")
    run_tiny(tmp_path, "epochs=1", f"init_from={places.weights_of(folder, twins)}")
    assert main(["train", "-m", *words]) == 0
    assert len(records.paths(tmp_path)) == 3
    assert main(["status", *words]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 runs have been finished before" in said and "3 runs: 3 done" in said


def test_a_recorded_run_that_began_from_kept_weights_is_repeated(source, capsys):
    folder, classifier, _ = source
    outcome = run_tiny(folder, f"init_from={classifier}", "epochs=1", "seed=8")
    assert main(["verify", outcome.id, "--results-dir", str(folder)]) == 0
    assert "bit-equal after 1 of 1 epochs" in capsys.readouterr().out


def test_a_recorded_run_whose_weights_are_gone_is_one_line(tmp_path, source, capsys):
    folder, classifier, _ = source
    outcome = run_tiny(tmp_path, f"init_from={places.weights_of(folder, classifier)}", "epochs=1")
    assert main(["verify", outcome.id, "--results-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"init_from={classifier}: a run that begins from these weights needs them" in err and err.count("\n") == 1


def test_weights_that_change_while_a_run_is_made_are_not_begun_from(tmp_path, source):
    path = tmp_path / "a.safetensors"
    path.write_bytes(places.weights_of(source[0], source[1]).read_bytes())
    config = runtime.settle(tiny_config(tmp_path, f"init_from={path}"))
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match="has been written anew meanwhile"):
        transfer.take(config, build.network(config.model, config.task, 10, (8, 8)))


MISTAKES = [
    (["init_from=zz"], "init_from=zz: no run whose id begins so has weights in results/weights"),
    (["init_from=nothing.safetensors"], "init_from=nothing.safetensors: there is no such file"),
    (["init_from=some/where"], "init_from=some/where: expected a run's id or the path of a .safetensors file"),
    (["init_from=a"], "init_from=a: the weights of 2 runs begin so: a1, a2; write more of the id"),
    (["init_from=1e5"], "init_from=100000.0: expected a run's id, in two pairs of quotes where it reads as a number"),
    (["init_from={sha256:a}"], "expected a run's id"),
    (["init_from=[a]"], "expected a run's id"),
    (
        ["init_from=a1", "model.name=resnet18"],
        "another architecture than model=resnet18: they have no bn1.bias, and 125",
    ),
    (["-m", "seed=0,1", "init_from=a1", "model.name=resnet18"], "weights of another architecture than model=resnet18"),
    (
        ["init_from=123"],
        "123.safetensors: weights of another architecture than model=tiny: 0.weight is 3 there and 8x3x3",
    ),
    (["init_from='1e4'"], "1e4.safetensors: weights of another architecture than model=tiny: it has no more.weight"),
    (["keep=weight"], "keep=weight: expected weights or null"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, source, words, message):
    monkeypatch.chdir(tmp_path)
    folder = places.weights_folder("results")
    folder.mkdir(parents=True)
    content = places.weights_of(source[0], source[1]).read_bytes()
    for name in ("a1", "a2"):
        (folder / f"{name}.safetensors").write_bytes(content)
    given = load_file(folder / "a1.safetensors")
    save_file({**given, "0.weight": torch.zeros(3)}, folder / "123.safetensors")
    save_file({**given, "more.weight": torch.zeros(3)}, folder / "1e4.safetensors")
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", *TINY, *words]) == 2
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_made_without_keeping_says_how_to_get_its_weights(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    outcome = run_tiny("results", "epochs=1")
    for command in (["train", *TINY, f"init_from={outcome.id[:8]}"], ["evaluate", outcome.id[:8]]):
        assert main(command) == 2
        assert "weights were not kept; keep=weights in another results_dir keeps them" in capfd.readouterr().err


def offered(tmp_path, theirs, *overrides):
    """What a run says of torchvision's weights, of which the file tells nothing but the tensors."""
    path = tmp_path / "theirs.safetensors"
    with torch.device("meta"):
        state = getattr(torchvision.models, theirs)(num_classes=7).state_dict()
    save_file({name: torch.zeros(one.shape, dtype=one.dtype) for name, one in state.items()}, path)
    config = resolve(compose([f"init_from={path}", "device=cpu", "precision=fp32", *overrides]))
    with torch.device("meta"):
        network = build.network(config.model, config.task, 10, (8, 8))
    return weights.told(runtime.settle(config), network)


@pytest.mark.parametrize(
    ("theirs", "words", "message"),
    [
        ("resnet18", ["model=resnet34"], "they have no layer1.2.bn1.bias, and 95 more"),
        ("resnet34", ["model=resnet18"], "it has no layer1.2.bn1.bias, and 95 more"),  # all of ResNet18 is there
        ("resnet18", ["model=resnet18", "model.stem=cifar"], "conv1.weight is 64x3x7x7 there and 64x3x3x3 here"),
        ("resnet18", ["model=resnet18", "model.norm=group"], "it has no bn1.num_batches_tracked, and 59 more"),
    ],
)
def test_another_architecture_is_told_by_its_tensors(tmp_path, theirs, words, message):
    with pytest.raises(UserError, match=f"another architecture than {words[0]}: {message}"):
        offered(tmp_path, theirs, *words)


@pytest.mark.parametrize("task", [["task=classification"], TWINS])
def test_others_weights_of_the_same_architecture_are_taken(tmp_path, task):
    own, more = ("projector", "") if task == TWINS else ("fc", " (7 classes there, 10 here)")
    said = f"begins from theirs.safetensors: 120 of its 122 tensors taken, without fc; {own} begins as drawn{more}"
    assert offered(tmp_path, "resnet18", *task) == said


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_classifier_is_found_by_its_size(name):
    model = resolve(compose([f"model={name}"])).model
    assert weights.classifier(model) == {"fc.weight", "fc.bias"}


def test_a_network_that_looks_at_values_as_it_is_made_is_begun_from(tmp_path, monkeypatch):
    @functools.wraps(tiny)
    def looking(classes, **settings):
        torch.linspace(0, 1, 2).tolist()  # as rates of layers are often made; fails without memory
        return tiny(classes, **settings)

    monkeypatch.setitem(MODELS, "looking", looking)
    words = ["model.name=looking", "epochs=1"]
    first = run_tiny(tmp_path, "keep=weights", *words)
    assert run_tiny(tmp_path, f"init_from={first.id}", "seed=1", *words).status == "done"
