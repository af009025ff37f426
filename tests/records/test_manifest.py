"""An edited record is found by its hash, whatever it says of itself."""

import json
import subprocess

import pytest
from planted import make

from lbt import verify
from lbt.records import manifest
from lbt.report.frame import load


@pytest.fixture
def without_checksum(tmp_path):
    """Two records of the first kind, vouched for."""
    paths = [make(tmp_path, 29.51, "optimizer=lars", f"seed={seed}") for seed in (0, 1)]
    for path in paths:
        *above, end = path.read_text().splitlines()
        end = json.loads(end)
        del end["sha256"]
        path.write_text("\n".join([*above, json.dumps(end)]) + "\n")
    assert verify.write_manifest(tmp_path) == 0
    return paths


def test_an_edit_that_nothing_contradicts_is_named_and_left_out(tmp_path, without_checksum):
    assert len(load(tmp_path).runs) == 2
    edited, other = without_checksum
    edited.write_text(edited.read_text().replace("29.51", "79.51"))
    frame = load(tmp_path)
    assert list(frame.runs["id"]) == [other.stem]
    (problem,) = frame.problems
    assert str(edited) in problem and "MANIFEST.sha256" in problem
    assert verify.check_all(tmp_path) == 1


def test_line_ends_do_not_matter(tmp_path, without_checksum):
    for path in (*without_checksum, manifest.path_of(tmp_path)):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(load(tmp_path).runs) == 2 and not load(tmp_path).problems


def test_a_record_it_does_not_name_is_shown_as_before(tmp_path, without_checksum):
    make(tmp_path, 50.0, "optimizer=lamb")
    assert len(load(tmp_path).runs) == 3 and not load(tmp_path).problems
    assert verify.check_all(tmp_path) == 0


def test_only_whole_and_final_records_are_vouched_for(tmp_path, without_checksum, capsys):
    without_checksum[0].write_text(without_checksum[0].read_text().replace('"step": 3', '"step": 1'))
    make(tmp_path, 50.0, "optimizer=lamb", status="interrupted")
    verify.write_manifest(tmp_path)
    assert list(manifest.read(tmp_path)) == [manifest.name_of(without_checksum[1])]
    assert "vouched for no more" in capsys.readouterr().out


def test_a_missing_record_is_said(tmp_path, without_checksum, capsys):
    without_checksum[0].unlink()
    (problem,) = load(tmp_path).problems
    assert problem == f"missing, though runs/MANIFEST.sha256 vouches for them: quickstart/{without_checksum[0].name}"
    assert verify.check_all(tmp_path) == 1
    assert f"{without_checksum[0]}: vouched for, and missing" in capsys.readouterr().out


def test_sha256sum_reads_it(tmp_path, without_checksum):
    subprocess.run(["sha256sum", "--check", manifest.NAME], cwd=tmp_path / "runs", check=True, capture_output=True)


@pytest.mark.parametrize("content", [b"nonsense\n", b"\xff\xfe", b"0" * 64 + b"  ../../x.jsonl\n"])
def test_a_damaged_manifest_is_named_and_stops_nothing(tmp_path, without_checksum, content):
    manifest.path_of(tmp_path).write_bytes(content)
    frame = load(tmp_path)
    assert len(frame.runs) == 2
    assert str(manifest.path_of(tmp_path)) in frame.problems[0]


@pytest.mark.parametrize("folder", ["aaa", "zzz"])
def test_a_changed_copy_that_nobody_vouches_for_does_not_throw_out_the_record_that_is_vouched_for(
    tmp_path, without_checksum, folder
):
    own = without_checksum[0]
    copy = tmp_path / "runs" / folder / own.name
    copy.parent.mkdir()
    copy.write_text(own.read_text().replace("29.51", "79.51"))
    frame = load(tmp_path)
    assert sorted(frame.runs["path"]) == sorted(map(str, without_checksum))
    (problem,) = frame.problems
    assert problem == f"{copy}: not what the manifest vouches for, {own} of the same id"
