"""The index says what the records say, with its cache or without."""

import os

import pytest
from planted import make
from support import configure

from lbt import records, runtime
from lbt.identity import from_json
from lbt.records import index, index_cache


@pytest.fixture(autouse=True)
def always_cached(monkeypatch):
    monkeypatch.setattr(index_cache, "WORTHWHILE", 1)


@pytest.fixture
def planted(tmp_path):
    make(tmp_path, 90.0, "optimizer=lars")
    make(tmp_path, 91.0, "optimizer=lars", "seed=3")
    make(tmp_path, None, "optimizer=lamb", status="diverged")
    make(tmp_path, 20.0, "optimizer=tvlars", status=None)
    return tmp_path


def told(results_dir):
    groups = index.by_key(results_dir)
    return sorted((key, one.id, one.status, one.epochs, str(one.summary)) for key, of in groups.items() for one in of)


def expected(results_dir):
    found = []
    for path in records.paths(results_dir):
        record = records.read(path)
        key, summary = index.key(from_json(record.run["config"])), record.end["summary"] if record.end else {}
        found.append((key, record.run["id"], record.status, len(record.epochs), str(summary)))
    return sorted(found)


def test_it_says_what_the_records_say(planted):
    assert told(planted) == expected(planted)
    assert index_cache.path_of(planted).exists()
    assert told(planted) == expected(planted)
    config = runtime.settle(configure("+experiment=quickstart", "precision=fp32", "optimizer=lars", "seed=3"))
    assert [one.summary["test_accuracy"] for one in index.by_key(planted)[index.key(config)]] == [91.0]


def test_unchanged_records_are_not_read_again(planted, monkeypatch):
    before = told(planted)
    monkeypatch.setattr(index, "read_regular", lambda path: pytest.fail(f"read {path}"))
    assert told(planted) == before


def test_changed_new_and_removed_records_are_seen(planted):
    told(planted)
    removed, edited, *_ = records.paths(planted)
    removed.unlink()
    state = edited.stat()
    edited.write_text(edited.read_text().replace('"kind": "run"', '"kind": "nur"'))  # as long as before, and no record
    os.utime(edited, ns=(state.st_atime_ns, state.st_mtime_ns))
    added = make(planted, 50.0, "optimizer=nesterov")
    found = {entry.id for of in index.by_key(planted).values() for entry in of}
    assert added.stem in found and not found & {removed.stem, edited.stem} and len(found) == 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, None])
def test_a_damaged_cache_is_made_again_silently(planted, capsys, damage):
    before = told(planted)
    path = index_cache.path_of(planted)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"done"', b'"oom!"') if damage is None else damage)
    assert told(planted) == before
    assert path.read_bytes() == whole
    assert capsys.readouterr() == ("", "")


def test_a_cache_that_is_no_file_is_done_without(planted):
    path = index_cache.path_of(planted)
    path.parent.mkdir()
    path.mkdir()
    assert told(planted) == expected(planted)


def test_a_small_folder_gets_no_cache(planted, monkeypatch):
    monkeypatch.setattr(index_cache, "WORTHWHILE", 500)
    told(planted)
    assert not index_cache.path_of(planted).exists()


def test_what_is_no_record_is_passed_over(planted):
    before = told(planted)
    folder = records.paths(planted)[0].parent
    os.mkfifo(folder / f"{'0' * 16}.jsonl")
    nested = '"study": ' + '{"a":' * 900 + "1" + "}" * 900
    text = records.paths(planted)[1].read_text()
    (folder / f"{'1' * 16}.jsonl").write_text(text.replace('"study": null', nested))
    assert told(planted) == before
