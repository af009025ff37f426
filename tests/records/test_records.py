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


def end_line(path):
    return path.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"done"', '"diverged"'),
        ('"epochs": 2}', '"epochs": 3}'),
        ('"epochs": 2}', '"epochs": 2, "test_accuracy": 99.0}'),
        ('"status": "done", ', '"status":"done",'),
    ],
)
def test_the_checksum_covers_the_last_line_too(path, old, new):
    line = end_line(path)
    assert old in line
    path.write_text(path.read_text().replace(line, line.replace(old, new)))
    with pytest.raises(records.RecordError, match="edited"):
        records.read(path)
    with pytest.raises(records.RecordError, match="edited"):
        records.outline(path, path.read_bytes())


def test_nothing_follows_the_checksum(path):
    path.write_text(path.read_text().rstrip()[:-1] + ', "status": "diverged"}\n')
    with pytest.raises(records.RecordError, match="edited"):
        records.read(path)


def test_records_of_the_first_two_kinds_stay_valid(path):
    above = "".join(f"{line}\n" for line in path.read_text().splitlines()[:-1])
    end = {"kind": "end", "status": "done", "summary": {"epochs": 2}}
    for more in ({}, {"sha256": hashlib.sha256(above.encode()).hexdigest()[:16]}):
        path.write_text(f"{above}{json.dumps(end | more)}\n")
        assert records.read(path).status == "done"
        assert records.outline(path, path.read_bytes())[1:] == (2, end | more if not more else end)


def late(path, place, status="interrupted"):
    """Puts the end of a process whose run another one went on with before the line at `place`."""
    lines = path.read_bytes().splitlines(keepends=True)
    stray = {"kind": "end", "status": status, "summary": {"epochs": 1}, "sha256": "0" * 16}
    path.write_bytes(b"".join([*lines[:place], f"{records.to_line(stray)}\n".encode(), *lines[place:]]))


@pytest.mark.parametrize("digits", [16, 64])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_the_end_of_an_interruption_that_more_follows_is_no_part_of_a_record(path, place, digits):
    if digits == 16:
        above, _, last = path.read_text().rstrip().rpartition("\n")
        end = {**json.loads(last), "sha256": hashlib.sha256(f"{above}\n".encode()).hexdigest()[:16]}
        path.write_text(f"{above}\n{json.dumps(end)}\n")
    whole = records.read(path)
    late(path, place)
    assert records.read(path) == whole
    assert records.outline(path, path.read_bytes())[1] == 2
    path.write_bytes(path.read_bytes().replace(b'"train_loss": 0.5', b'"train_loss": 0.4'))
    with pytest.raises(records.RecordError, match="edited"):
        records.read(path)


def test_no_other_end_stands_within_a_record(path):
    late(path, 2, "done")
    with pytest.raises(records.RecordError, match="line 4 follows the record's end"):
        records.read(path)


def test_a_run_another_process_went_on_with_is_not_written_to(path):
    first = records.RecordWriter(path, [records.to_line(FIRST)])
    second = records.RecordWriter(path, [records.to_line(FIRST)])
    first.append(epoch(1))
    second.append(epoch(1))
    first.end("interrupted", {"epochs": 1})
    assert records.read(path).status == "unfinished"
    second.append(epoch(2))
    second.end("done", {"epochs": 2})
    assert records.read(path).status == "done" and len(records.read(path).epochs) == 2


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_result_is_not_lost_with_its_file(path, lose):
    content = path.read_bytes()
    writer = records.RecordWriter(path, [records.to_line(FIRST)])
    writer.append(epoch(1))
    path.unlink()  # and a program that brings files back puts another one there
    path.write_bytes(content[:10])
    lose(path)
    writer.append(epoch(2))
    writer.end("done", {"epochs": 2})
    assert path.read_bytes() == content


def test_line_ends_that_git_has_changed_do_not_matter(path):
    before = records.read(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert records.read(path) == before
    assert records.outline(path, path.read_bytes())[1] == 2


@pytest.mark.parametrize("levels", [50, 1000, 100_000])
@pytest.mark.parametrize("where", ["config", "provenance"])
def test_a_line_nested_too_deep_is_named(path, levels, where):
    nested = '{"a": ' * levels + "1" + "}" * levels
    path.write_text(path.read_text().replace(f'"{where}": {{}}', f'"{where}": {nested}'))
    with pytest.raises(records.RecordError, match=r"line 1 is (nested|not JSON)"):
        records.read(path)


def test_hidden_files_and_folders_hold_no_records(path, tmp_path):
    for hidden in (path.with_name("._a.jsonl"), path.parent.with_name(".trash") / "a.jsonl"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"\x00\x05\x16\x07")
    assert records.paths(tmp_path) == [path]
    assert records.find(tmp_path, "a") == path


def test_an_outline_is_the_record_without_its_epochs(path):
    whole = path.read_bytes()
    end = {"kind": "end", "status": "done", "summary": {"epochs": 2}}
    assert records.outline(path, whole) == (FIRST, 2, end)
    assert records.outline(path, whole[:-40]) == (FIRST, 2, None)
    with pytest.raises(records.RecordError, match="edited"):
        records.outline(path, whole.replace(b'"step": 1', b'"step": 7'))


def test_a_final_record_takes_the_place_of_what_was_left_behind(path, tmp_path):
    target = tmp_path / "runs" / "b" / "a.jsonl"
    records.copy(path, target)
    assert target.read_bytes() == path.read_bytes()
    target.write_text(f"{records.to_line(FIRST)}\n")
    records.copy(path, target)
    assert records.read(target).status == "done"
    other = records.RecordWriter(target, [records.to_line(FIRST)])
    other.end("diverged", {})
    records.copy(path, target)
    assert records.read(target).status == "diverged"
