import hashlib
import json

import pytest

from lbt import records

FIRST = {"kind": "run", "schema": 1, "id": "a", "config": {}, "provenance": {}}


def epoch(number):
    return {"kind": "epoch", "epoch": number, "step": number, "train_loss": 1.0 / number}


@pytest.fixture
def path(tmp_path):
    writer = records.RecordWriter(tmp_path / "runs" / "adhoc" / "a.jsonl", [records.to_line(FIRST)])
    writer.append(epoch(1))
    writer.append(epoch(2))
    writer.end("done", {"epochs": 2})
    return writer.path


def test_reads_back_what_was_written(path):
    record = records.read(path)
    assert record.run == FIRST
    assert record.epochs == [epoch(1), epoch(2)]
    sha256 = hashlib.sha256(path.read_bytes().partition(b', "sha256"')[0]).hexdigest()
    assert record.end == {"kind": "end", "status": "done", "summary": {"epochs": 2}, "sha256": sha256}
    assert records.find(path.parents[2], "a") == path


def test_not_finite_numbers_become_null():
    assert json.loads(records.to_line({"a": [float("nan"), 1.0], "b": {"c": float("-inf")}})) == {
        "a": [None, 1.0],
        "b": {"c": None},
    }


def test_a_record_cut_off_at_any_byte_is_an_unfinished_run_or_refused(path):
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1):
        path.write_bytes(whole[:length])
        try:
            record = records.read(path)
        except records.RecordError:
            assert b"\n" not in whole[:length]  # not even the first line is there
            continue
        # Only the closing line may count before its newline is written: it is complete then.
        assert record.status == ("done" if whole[:length].endswith(b"}}") and record.end else "unfinished")
        assert len(record.epochs) <= 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: ["{}", *lines[1:]], "line 1 is not the start of a record"),
        (lambda lines: [lines[0].replace('"schema": 1', '"schema": 2'), *lines[1:]], "schema 1"),
        (lambda lines: [lines[0], lines[2], lines[1]], "line 2 is out of place"),
        (lambda lines: [lines[0], lines[1], lines[1]], "line 3 is out of place"),
        (lambda lines: [lines[0], lines[1][:-5], *lines[2:]], "line 2 is not JSON"),
        (lambda lines: [lines[0], "[1]"], "line 2 is not a JSON object"),
        (lambda lines: [*lines, lines[1]], "line 5 follows the record's end"),
        (lambda lines: [*lines[:3], lines[3].replace("done", "won")], "line 4 is out of place"),
        (lambda lines: [lines[0], *lines[1].split(", ", 1), *lines[2:]], "line 2 is not JSON"),
        (lambda lines: [lines[0], lines[1].replace("0", "9"), *lines[2:]], "edited"),
        (lambda lines: [lines[0], lines[1], lines[3]], "edited"),
        (lambda lines: [], "empty"),
        (lambda lines: [lines[0].replace("{}", "[]", 1), *lines[1:]], "line 1 has no configuration or provenance"),
        (lambda lines: [*lines[:3], '{"kind": "end", "status": "done"}'], "line 4 is out of place"),
    ],
)
def test_a_damaged_record_is_named(path, edit, message):
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in edit(lines)))
    with pytest.raises(records.RecordError, match=message) as caught:
        records.read(path)
    assert str(path) in str(caught.value)


def test_a_line_cut_off_within_a_letter_is_passed_over(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + '{"kind": "end", "note": "\u00e9'.encode()[:-1])
    assert len(records.read(path).epochs) == 2
    assert records.read(path).end is None


@pytest.mark.parametrize("line", [b'{"note": "\xff"}', b'{"train_loss": NaN}'])
def test_a_line_of_other_bytes_or_numbers_than_json_has_is_named(path, line):
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:], b""]))
    with pytest.raises(records.RecordError, match="line 2 is not JSON"):
        records.read(path)


def test_resuming_replaces_what_the_killed_run_wrote_after_its_checkpoint(path):
    kept = path.read_text().splitlines()[:2]
    writer = records.RecordWriter(path, kept)
    writer.append(epoch(2))
    assert [line["epoch"] for line in records.read(path).epochs] == [1, 2]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "file"
    records.replace_file(target, b"old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        records.replace_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
