"""`lbt evaluate`: the record's figures again on the run's own data, others on other data, and nothing is written."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from support import configure, run_tiny
from torch.nn.functional import cross_entropy

from lbt import build, records, runtime, weights
from lbt.cli import main
from lbt.data import load, normalise
from lbt.evaluate import _threads, score
from lbt.records import places
from lbt.run import run

TWINS = ["task=barlow_twins", "data.augment=barlow_twins", "task.projector=[6,4]", "task.probe.epochs=2"]
KINDS = {
    "plain": [],
    "ema": ["ema=0.8", "seed=1"],
    "schedule-free": ["optimizer=schedulefree_sgd"],
    "held out": ["data.val=0.25", "data.subset=40", "seed=2"],
    "a part": ["data.test_every=3", "seed=3"],
    "bf16": ["precision=bf16"],
    "twins": TWINS,
    "twins, adapting": [*TWINS, "task.probe.mode=train", "task.probe.batch=8", "task.probe.test_augment=none"],
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the weights of a run of each kind, and the outcomes."""
    folder = tmp_path_factory.mktemp("kept") / "results"
    return folder, {kind: run_tiny(folder, "keep=weights", "epochs=2", *words) for kind, words in KINDS.items()}


def evaluated(capsys, folder, *words):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code = main(["evaluate", *words, "--results-dir", str(folder)])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_own_data_give_the_records_last_figures_bit_for_bit(kept, capsys, kind):
    folder, outcomes = kept
    outcome = outcomes[kind]
    last = records.read(outcome.path).epochs[-1]
    config = runtime.settle(outcome.config)
    found = score(weights.read(places.weights_of(folder, outcome.id)), config, build.images(config))
    split = "val_" if kind == "held out" else "test_"
    assert {f"{split}{key}": value for key, value in found.items()} == {
        key: value for key, value in last.items() if key.startswith(split)
    }
    said = evaluated(capsys, folder, outcome.id)
    assert "the record's figures, bit for bit" in said
    for key, value in last.items():
        if key.startswith(split):
            shown = f"{value:.2f}" if key.endswith("accuracy") else f"{value:.3f}"
            assert any(key.replace("_", " ") in line and line.count(shown) == 2 for line in said.splitlines()), key


def test_other_figures_than_the_records_are_said(kept, capsys):
    folder, outcomes = kept
    said = evaluated(capsys, folder, outcomes["plain"].id, "precision=bf16")
    assert "other figures than the record's: test_loss " in said


def test_another_set_is_scored_and_is_not_compared(kept, capsys):
    folder, outcomes = kept
    words = ["data=synthetic", "data.size=30", "data.test_size=50", "data.resolution=12"]
    said = evaluated(capsys, folder, outcomes["plain"].id[:8], *words)
    images = load("synthetic", size=30, test_size=50, resolution=12)
    model = weights.load_model(outcomes["plain"].id, folder)
    with torch.no_grad():
        logits = model(normalise(images.test_images))
    assert f"{cross_entropy(logits, images.test_labels):.3f}" in said
    assert "50 images, not what the run was scored on" in said and "record" not in said


def test_a_part_of_its_own_data_is_not_compared(kept, capsys):
    folder, outcomes = kept
    said = evaluated(capsys, folder, outcomes["plain"].id, "data.test_every=2")
    assert ": 8 images, not what the run was scored on" in said and "record's" not in said


def test_a_file_elsewhere_brings_its_record(kept, capsys, tmp_path, monkeypatch):
    folder, outcomes = kept
    monkeypatch.chdir(tmp_path)
    path = places.weights_of(folder, outcomes["ema"].id)
    assert main(["evaluate", str(path)]) == 0
    assert "the record's figures, bit for bit" in capsys.readouterr().out
    (tmp_path / "a.safetensors").write_bytes(path.read_bytes())
    assert main(["evaluate", "a.safetensors"]) == 0
    assert "no record of this run in results to compare with" in capsys.readouterr().out


def test_a_backbone_scores_images_of_any_classes(kept, capsys):
    folder, outcomes = kept
    said = evaluated(capsys, folder, outcomes["twins"].id, "data.classes=4")
    assert "knn accuracy" in said and "of 4 classes" in said


def text(folder, words):
    """A folder with two texts of these words, in an order of its own."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        (folder / f"{name}.txt").write_text(" ".join(draw.choice(words, 3000)))
    return folder


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A folder with kept weights of a run on text, the run and the text's place."""
    folder = tmp_path_factory.mktemp("language")
    root = text(folder / "a", ["red", "green", "blue", "white", "black"])
    data = ["data=text", f"data.root={root}", "data.length=16", "data.vocabulary=300"]
    words = ["task=masked_language", "model=bert_tiny", *data, "optimizer=sgd", "lr=0.01", "batch=128", "epochs=1"]
    config = configure(*words, "precision=fp32", "keep=weights", f"results_dir={folder / 'results'}", "device=cpu")
    return folder / "results", run(config), root


def test_a_texts_own_data_spelled_out_are_its_own(language, capsys):
    folder, outcome, root = language
    said = evaluated(capsys, folder, outcome.id, f"data.root={root}")
    for words in (["data=text", f"data.root={root}"], [f"data.root={root}", "data=text", "data.length=16"]):
        assert evaluated(capsys, folder, outcome.id, *words) == said
    assert "the record's figures, bit for bit" in said


@pytest.mark.parametrize("verb", ["evaluate", "landscape"])
@pytest.mark.parametrize("other", ["another text", "data.tokens=bytes"])
def test_tokens_of_another_vocabulary_are_not_scored(language, tmp_path, capsys, verb, other):
    folder, outcome, root = language
    if other == "another text":
        root, other = text(tmp_path / "b", ["lead", "iron", "zinc", "gold", "neon"]), "data.length=16"
    assert main([verb, outcome.id, f"data.root={root}", other, "--results-dir", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "its tokens are of another vocabulary than data=text's" in err and err.count("\n") == 1


def test_other_images_are_as_large_as_the_networks_own_unless_it_is_said(kept, tmp_path, capsys):
    folder, outcomes = kept
    draw = np.random.default_rng(0)
    for split, place in itertools.product(("train", "test"), range(10)):
        (tmp_path / split / str(place)).mkdir(parents=True)
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            tmp_path / split / str(place) / "a.png"
        )
    words = ["data=image_folder", f"data.root={tmp_path}"]
    assert "scaled to 8x8" in evaluated(capsys, folder, outcomes["twins"].id, *words)
    assert "scaled to 16x16" in evaluated(capsys, folder, outcomes["twins"].id, "data.resolution=16", *words)


MISTAKES = [
    (["data=pydocs"], "model=tiny: is for images, data=pydocs has tokens"),
    (["data.classes=4"], "data=synthetic: has 4 classes, these weights know 10"),
    (["batch=8"], "batch=8: not a setting of scoring; choose from data, device, precision"),
    (["data=nothing"], 'data=nothing: there is no data "nothing"'),
    (["data.sizes=4"], "data.sizes: no such setting"),
    (["data.val=2"], "data.val=2: expected a share"),
    (["precision=fp8"], "precision=fp8: no such choice"),
    (["device"], "device"),
    (["data=image_folder", "data.root=nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line(kept, capfd, words, message):
    folder, outcomes = kept
    assert main(["evaluate", outcomes["plain"].id, *words, "--results-dir", str(folder)]) == 2
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and out == "" and "LBT_DEBUG" not in err


@pytest.mark.skipif(runtime.cores() < 2, reason="one core")
@pytest.mark.parametrize(("changes", "number"), [([], 2), ([[0, 2], [3, 1]], 1)])
def test_it_computes_with_the_threads_that_the_run_ended_with(kept, changes, number):
    _, outcomes = kept
    record = records.read(outcomes["plain"].path)
    record.run["provenance"]["threads"] = 2
    record.end["summary"]["threads"] = changes
    before = torch.get_num_threads()
    with _threads(outcomes["plain"].config, record):
        assert torch.get_num_threads() == number
    assert torch.get_num_threads() == before
