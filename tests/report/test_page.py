"""The page that `lbt report` writes, looked at without a browser."""

import base64
import hashlib
import json
import random
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from markupsafe import escape
from planted import PROVENANCE, make, plant
from support import REPOSITORY, configure

from lbt import records, runtime
from lbt.cli import main
from lbt.config import resolve
from lbt.identity import identity, identity_of, run_id, to_json
from lbt.report import answer
from lbt.report.frame import load
from lbt.report.kit import specs
from lbt.report.page import bundle, content, curves, grids, runs, write
from lbt.sweep import compose

HOSTILE = [
    "<script>document.title = 'taken'</script>", '"><img src=x onerror="document.title=1">', "a | b \\ c `d` [e](f)",
    "long " + "x" * 10_000, "\u202eright to left שלום", "</script><!-- \u2028 & &amp;",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a few runs of the quick start, one of them diverged."""
    found = tmp_path_factory.mktemp("results")
    config = runtime.settle(configure("+experiment=quickstart", "precision=fp32", "epochs=3", "optimizer=lars"))
    for seed, accuracy in enumerate([(10.0, 20.0, 30.0), (12.0, 26.0, 31.0), (11.0, 20.0, 38.0)]):
        lines = [{"train_loss": 2.5 - 0.1 * at, "wall_train_seconds": 2.0} for at in range(3)]
        plant(found, replace(config, seed=seed), accuracy, lines=lines)
    make(found, 9.0, "optimizer=lamb", "batch=512", status="diverged")
    return found


def read(path):
    """The page, and its data by name."""
    text = path.read_text()
    found = re.findall(r'<script type="application/json" id="data-(\w+)">(.*?)</script>', text, flags=re.DOTALL)
    return text, {name: json.loads(data) for name, data in found}


def test_the_same_records_give_the_same_bytes_wherever_they_lie(folder, tmp_path):
    first = write(folder).read_bytes()
    shutil.copytree(folder, tmp_path / "copy")
    for path in random.Random(1).sample(list((tmp_path / "copy").rglob("*.jsonl")), 4):
        path.write_bytes(path.read_bytes())  # by other times
    assert write(tmp_path / "copy").read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_its_policy_admits_its_own_scripts_and_nothing_from_elsewhere(folder):
    text, _ = read(write(folder))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 3 and rules["default-src"] == ["'none'"] and rules["img-src"] == ["data:"]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    assert rules["script-src"] == hashes and len(rules["style-src"]) == 1
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:|//|javascript:)""", text.split("<script>")[0])
    assert " style=" not in text.split("<script>")[0] and not re.search(r"<[^>]* on\w+=", text.split("<script>")[0])


def test_the_libraries_are_those_their_note_names():
    note = (bundle.ASSETS / "vendor" / "README.md").read_text()
    for name in bundle.LIBRARIES:
        assert hashlib.sha256((bundle.ASSETS / name).read_bytes()).hexdigest() in note


def test_a_texts_letters_end_no_script_and_come_back_as_they_are():
    text = bundle.island(HOSTILE)
    assert not set("<>&\u2028") & set(text) and json.loads(text) == HOSTILE


def plant_hostile(results_dir, text, number):
    """Plants a record whose settings and provenance say something else than records do."""
    config = {**to_json(runtime.settle(configure("+experiment=quickstart", "precision=fp32", "epochs=1")))}
    config["optimizer"] = {"name": text, "momentum": 0.9}
    config["seed"] = number
    made_by = {**PROVENANCE, "device_name": text, "data": text, "commit": "f" * 40}
    name = run_id(identity_of(config), made_by["data_fingerprint"])
    first = {"kind": "run", "schema": 1, "id": name, "config": config, "provenance": made_by}
    writer = records.RecordWriter(records.path_of(results_dir, "own sweep", name), [records.to_line(first)])
    writer.append({"kind": "epoch", "epoch": 1, "step": 1, "test_accuracy": 5.0, "train_loss": 1.0, text: 3.0})
    writer.end("done", {"epochs": 1, "steps": 1, "test_accuracy": 5.0, "train_loss": 1.0, "wall_seconds": 1.0})
    return name


def test_what_a_record_says_is_no_markup(tmp_path):
    for number, text in enumerate(HOSTILE):
        plant_hostile(tmp_path, text, number)
    text, data = read(write(tmp_path))
    markup = text.split("<script type=")[0]
    assert "<img" not in markup and not re.search(r"<script[^>]", markup) and markup.count("<script>") == 0
    optimizers = next(one for one in data["runs"]["columns"] if one["key"] == "optimizer.name")
    assert sorted(optimizers["texts"]) == sorted(HOSTILE)


def decode(text):
    """What the page's script makes of a packed curve."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 3)
    whole = np.concatenate([packed, np.zeros((len(packed), 1), np.uint8)], axis=1)
    return whole.copy().view(">f4")[:, 0]


def test_packed_values_are_within_the_error_that_the_page_states():
    random_values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.random.default_rng(1).integers(
        -20, 20, 1000
    )
    values = np.array([0.0, 1.0, -3.5, 1e-30, 3e38, 84.73, *random_values], np.float32)
    np.testing.assert_allclose(decode(curves.pack(values)), values, rtol=2e-5)
    odd = decode(curves.pack(np.array([np.nan, np.inf, -np.inf], np.float32)))
    assert np.isnan(odd[0]) and odd[1] == np.inf and odd[2] == -np.inf


def test_thinned_curves_keep_their_ends_and_their_budget():
    values = [{"loss": np.arange(100, dtype=np.float32) + run} for run in range(50)]
    found = curves.island(values, letters=4 * 50 * 30)
    assert found["thinned"] and found["points"] == 30 and sum(map(len, found["packed"])) <= 4 * 50 * 30
    epochs = found["epochs"]["100"]
    assert epochs[0] == 1 and epochs[-1] == 100 and len(epochs) == 30
    assert max(np.diff(epochs)) - min(np.diff(epochs)) <= 1  # evenly spread
    np.testing.assert_allclose(decode(found["packed"][3]), np.array(epochs) - 1 + 3, rtol=2e-5)
    assert not curves.island(values)["thinned"]


def test_curves_of_equal_values_are_stored_once(folder):
    packed = read(write(folder))[1]["curves"]
    name = packed["names"].index("train_loss")
    places = [dict(zip(line[::2], line[1::2], strict=True)).get(name) for line in packed["runs"]]
    assert len(set(places) - {None}) == 1 and places.count(None) == 1
    seconds = {
        dict(zip(line[::2], line[1::2], strict=True)).get(packed["names"].index("seconds")) for line in packed["runs"]
    }
    np.testing.assert_allclose(decode(packed["packed"][(seconds - {None}).pop()]), [2, 4, 6])  # summed over the epochs


def command_of(data, place):
    """The words that the page's script joins for a run."""
    words = [one["word"] for one in data["same"]]
    for one in data["columns"]:
        if "words" in one:
            code = one["codes"][place]
            words.append(one["words"][code] if code >= 0 else "" if place in one.get("lacking", []) else one["nothing"])
    words += [word for word, places in data["words"].items() if place in places]
    words = shlex.split(" ".join(words))
    return sorted(words, key=lambda word: "." in word.partition("=")[0])  # choices before settings of theirs


def test_the_command_of_a_committed_run_is_that_run():
    frame = load(REPOSITORY / "results", keep=curves.keep)
    data = runs.island(frame.runs)
    wanted = {}
    for place, run in enumerate(frame.runs.to_dict("records")):
        wanted.setdefault((run["experiment"].split("_short")[0], run["protocol.name"] == "released"), place)
    assert len(wanted) > 5
    for place in wanted.values():
        again = resolve(compose(command_of(data, place)))
        assert run_id(identity(again), frame.runs["fingerprint"].iloc[place]) == data["ids"][place]


def test_columns_have_names_of_their_own_and_groups_hold_runs_that_differ_in_their_seeds_alone(folder):
    data = read(write(folder))[1]["runs"]
    optimizers = next(one for one in data["columns"] if one["key"] == "optimizer.name")
    names = [optimizers["texts"][code] for code in optimizers["codes"]]
    keys = [one["key"] for one in [*data["columns"], *data["same"]]]
    assert len(keys) == len(set(keys))  # by which the page finds a column
    assert sorted(map(data["groups"].count, data["groups"])) == [1, 3, 3, 3]
    assert data["groups"].count(data["groups"][names.index("lamb")]) == 1


def test_a_grid_says_how_much_of_it_exists_and_marks_what_became_of_it(folder):
    frame = load(folder, keep=curves.keep)
    grid = next(one for one in grids.gather(frame, folder)[0] if one.name == "quickstart")
    entries = [entry for section in grid.page.sections for row in section.rows for entry in row]
    marks = [grids.marked(entry) for entry in entries]
    assert marks.count("diverged") == 1 and marks.count("missing") == 10 and len(grid.page.sections) == 2
    assert (grid.there, grid.runs) == (2, 4) and grid.places >= 8
    (mean,) = [entry for entry in entries if entry.value is not None]
    assert mean.value == pytest.approx(33.0) and len(mean.runs) == 3


def test_claims_and_places_without_runs_are_not_there_and_have_a_command(tmp_path):
    for batch, optimizer in ((512, "lars"), (1024, "lars"), (512, "tvlars")):
        words = ("data=cifar10", "epochs=100", f"batch={batch}", f"optimizer={optimizer}", "protocol=released")
        make(tmp_path, 80.0, *words, folder="tvlars_table1_cifar10_clf")
    found = {one["title"]: one for one in content._coverage(grids.gather(load(tmp_path), tmp_path)[0], [])}
    of_steps = found[specs.read("table", "steps_to_target")["title"]]
    assert (of_steps["there"], of_steps["of"], of_steps["runs"]) == (3, 4, 3)
    of_claims = found[specs.read("table", "why_claims")["title"]]
    assert of_claims["there"] == 0 < of_claims["of"]
    of_branches = found[specs.read("table", "critical_batch")["title"]]
    assert of_branches["command"].endswith("+experiment=critical_batch") and not of_branches["runs"]


def test_the_overview_begins_with_the_answers(folder):
    text, _ = read(write(folder))
    found = answer.answers(load(folder))
    assert found and all(str(escape(one.sentence)) in text for one in found)


def test_it_is_a_verb_that_says_where_the_page_is(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert str(folder / "index.html") in capsys.readouterr().out
    assert main(["report", "--results-dir", str(folder / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_folder_without_runs_has_a_page(tmp_path):
    text, data = read(write(tmp_path))
    assert data["runs"]["ids"] == [] and "No run yet" in text
