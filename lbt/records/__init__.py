"""One file per run: append-only JSON lines, complete in themselves, from which tables and figures are made.

`<results_dir>/runs/<experiment>/<id>.jsonl` holds a line `{"kind": "run", ...}` with configuration and provenance, a
line `{"kind": "epoch", ...}` an epoch and, once the run has come to an end, a line `{"kind": "end", ...}` with a
checksum of all that stands before it. Line ends are not part of a record: git and editors change them. Nor is the end
of an interruption that further lines follow: earlier versions let a process write it late into the record of the one
that had gone on with its run.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbt.files import Appended, read_regular, remove_left, replace_file, replacing
from lbt.records.lines import RecordError, json_lines, to_line, unix_line_ends

__all__ = [
    "FINAL", "SCHEMA", "STATUSES", "RecordError", "RecordWriter", "RunRecord", "UnwrittenRecord", "checksum", "copy",
    "find", "outline", "parse", "path_of", "paths", "read", "read_final", "remove_left", "replace_file", "replacing",
    "to_line",
]  # fmt: skip

SCHEMA = 1
STATUSES = ("done", "diverged", "oom", "failed", "interrupted")
FINAL = ("done", "diverged")  # running the same configuration again would give the same
_SUM = re.compile(rb', "sha256": "([0-9a-f]{16}|[0-9a-f]{64})"}\Z')  # what ends a record


@dataclass
class RunRecord:
    """A record as read: the run's line, its epochs and its end, None while it has none."""

    path: Path
    run: dict[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        """One of `STATUSES`, or `unfinished` where the record has no end."""
        return self.end["status"] if self.end else "unfinished"


def path_of(results_dir: str | Path, experiment: str, run_id: str) -> Path:
    """Returns where the record of a run belongs."""
    return Path(results_dir) / "runs" / experiment / f"{run_id}.jsonl"


def find(results_dir: str | Path, run_id: str) -> Path | None:
    """Returns the record of a run, in whichever experiment's folder it lies."""
    return next(iter(_copies(results_dir, run_id)), None)


def read_final(results_dir: str | Path, run_id: str) -> RunRecord | None:
    """Returns the record of a run that needs no other execution, None where there is none.

    Of several copies, in several experiments' folders, the first that is whole and final counts, and none that is
    another run's.
    """
    for path in _copies(results_dir, run_id):
        with contextlib.suppress(RecordError, OSError):
            record = read(path)
            if record.status in FINAL and record.run["id"] == run_id:
                return record
    return None


def copy(record: Path, target: Path) -> None:
    """Copies a final record, unless there is a final one at `target`."""
    if record == target or _is_final(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, read_regular(record))


def _is_final(path: Path) -> bool:
    with contextlib.suppress(RecordError, OSError):
        return read(path).status in FINAL
    return False


def paths(results_dir: str | Path) -> list[Path]:
    """Returns every record's path below `results_dir`, in a stable order; hidden files are no records."""
    return [folder / name for folder in _folders(results_dir) for name in _names(folder) if name.endswith(".jsonl")]


def _copies(results_dir: str | Path, run_id: str) -> list[Path]:
    found = [folder / f"{run_id}.jsonl" for folder in _folders(results_dir)]
    return [path for path in found if path.exists()]


def _folders(results_dir: str | Path) -> list[Path]:
    runs = Path(results_dir) / "runs"
    return [runs / name for name in _names(runs) if (runs / name).is_dir()]


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def read(path: str | Path) -> RunRecord:
    """Returns the record at `path`.

    Raises:
        RecordError: the file is not a record of this schema, a line other than the last one is damaged, or its lines
            are not those its checksum was made of. An incomplete last line is what a killed run leaves and is passed
            over.
        OSError: it cannot be read.
    """
    return parse(Path(path), read_regular(path))


def parse(path: Path, content: bytes) -> RunRecord:
    """Returns the record that is the content of the file at `path`.

    Raises:
        RecordError: as `read` says.
    """
    content = unix_line_ends(content)
    lines = json_lines(path, content)
    if not lines:
        raise RecordError(f"{path}: empty")
    if stray := [place for place, line in enumerate(lines[:-1]) if _is_end(line) and line["status"] == "interrupted"]:
        kept = [line for place, line in enumerate(content.split(b"\n")) if place not in stray]
        content, lines = b"\n".join(kept), [line for place, line in enumerate(lines) if place not in stray]
    record = RunRecord(path, _checked_first(path, lines[0]), lines[1:])
    if record.epochs and _is_end(record.epochs[-1]):
        record.end = record.epochs.pop()
    for epoch, line in enumerate(record.epochs, 1):
        if line.get("kind") != "epoch" or line.get("epoch") != epoch:
            if _is_end(line):
                raise RecordError(f"{path}: line {epoch + 2} follows the record's end")
            raise RecordError(f"{path}: line {epoch + 1} is out of place")
    expected = record.end.get("sha256") if record.end else None  # the first records have none
    if expected is not None and expected != _sum_of(content, expected):
        raise RecordError(f"{path}: edited: its lines do not give the checksum in the last one")
    return record


def _checked_first(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    if run.get("kind") != "run" or run.get("schema") != SCHEMA or not {"id", "config", "provenance"} <= run.keys():
        raise RecordError(f"{path}: line 1 is not the start of a record of schema {SCHEMA}")
    if not isinstance(run["config"], dict) or not isinstance(run["provenance"], dict):
        raise RecordError(f"{path}: line 1 has no configuration or provenance")
    return run


def _is_end(line: dict[str, Any]) -> bool:
    return line.get("kind") == "end" and line.get("status") in STATUSES and isinstance(line.get("summary"), dict)


def outline(path: Path, content: bytes) -> tuple[dict[str, Any], int, dict[str, Any] | None]:
    """Returns a record's first line, its number of epochs and its last line, with as little work as that takes.

    Where a checksum vouches for them, the epochs are counted and not read.

    Raises:
        RecordError: as `read` says.
    """
    body = unix_line_ends(content).rstrip()
    first, last = body.partition(b"\n")[0], body[body.rfind(b"\n") + 1 :]
    if (found := _SUM.search(last)) and found[1].decode() == _sum_of(body, found[1].decode()):
        ends = parse(path, b"%b\n%b\n" % (first, last[: found.start()] + b"}"))
        return ends.run, body.count(b"\n") - 1, ends.end
    record = parse(path, content)
    return record.run, len(record.epochs), record.end


def _sum_of(content: bytes, expected: Any) -> str | None:
    """Returns the checksum of a record as its kind was made: of all before it, or in 16 digits of the lines above."""
    body = content.rstrip()
    last = body.rfind(b"\n") + 1
    if len(str(expected)) == 16:
        return checksum(content[:last])
    found = _SUM.search(body, last)
    return found and hashlib.sha256(body[: found.start()]).hexdigest()


def checksum(lines: bytes) -> str:
    """Returns what the last line of earlier records holds of the lines above it: 16 hex digits of their SHA-256."""
    return hashlib.sha256(lines).hexdigest()[:16]


class UnwrittenRecord:
    """A record's lines in a process that leaves the writing to another one."""

    def __init__(self, lines: list[str]):
        self.lines = list(lines)

    def append(self, content: Mapping[str, Any]) -> None:
        """Adds one line."""
        self.lines.append(to_line(content))

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Adds nothing: who writes the record ends it."""


class RecordWriter:
    """Writes one record; `lines` holds what it has written so that a checkpoint can restore it.

    Args:
        path: the record's file; its folder is made.
        lines: the lines to begin with: the run's line, and on resuming those of the epochs already trained. They
            replace whatever the file held.
    """

    def __init__(self, path: Path, lines: list[str]):
        self.path, self.lines = path, list(lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = Appended(path, self._text())

    def append(self, content: Mapping[str, Any]) -> None:
        """Adds one line."""
        line = to_line(content)
        self.lines.append(line)
        self._file.append(f"{line}\n".encode())

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Adds the last line, with the checksum of all before it, and waits until it is on the disk.

        Where another file has the record's name by now (that of a process that has gone on with the run, a copy that a
        program has put there), it gets nothing of an interrupted run; one that has come to its end takes its place,
        unless it has come to an end, too.
        """
        line = to_line({"kind": "end", "status": status, "summary": summary})
        body = self._text() + line.removesuffix("}").encode()
        whole = body + f', "sha256": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()
        self._file.append(whole[len(self._text()) :])
        in_place = self._file.in_place()
        self._file.close()
        if not in_place and (not self.path.exists() or (status in FINAL and not _is_final(self.path))):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, whole)

    def _text(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode()
