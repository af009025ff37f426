"""One file per run: append-only JSON lines, complete in themselves, from which tables and figures are made.

`<results_dir>/runs/<experiment>/<id>.jsonl` holds a line `{"kind": "run", ...}` with configuration and provenance, a
line `{"kind": "epoch", ...}` an epoch and, once the run has come to an end, a line `{"kind": "end", ...}` with a
checksum of the lines above it.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

SCHEMA = 1
STATUSES = ("done", "diverged", "oom", "failed", "interrupted")
FINAL = ("done", "diverged")  # running the same configuration again would give the same


class RecordError(Exception):
    """A record that cannot be read as one; its text names the file and what is wrong."""


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
    return next(iter(sorted(Path(results_dir).glob(f"runs/*/{run_id}.jsonl"))), None)


def read_final(results_dir: str | Path, run_id: str) -> RunRecord | None:
    """Returns the record of a run that needs no other execution, None where there is none.

    Of several copies, in several experiments' folders, the first that is whole and final counts, and none that is
    another run's.
    """
    for path in sorted(Path(results_dir).glob(f"runs/*/{run_id}.jsonl")):
        with contextlib.suppress(RecordError, OSError):
            record = read(path)
            if record.status in FINAL and record.run["id"] == run_id:
                return record
    return None


def copy(record: Path, target: Path) -> None:
    """Copies a record, unless there is one at `target`."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, record.read_bytes())


def paths(results_dir: str | Path) -> list[Path]:
    """Returns every record's path below `results_dir`, in a stable order."""
    return sorted(Path(results_dir).glob("runs/*/*.jsonl"))


def read(path: str | Path) -> RunRecord:
    """Returns the record at `path`.

    Raises:
        RecordError: the file is not a record of this schema, a line other than the last one is damaged, or its lines
            are not those its checksum was made of. An incomplete last line is what a killed run leaves and is passed
            over.
    """
    path = Path(path)
    content = path.read_bytes()
    lines = _json_lines(path, content)
    if not lines:
        raise RecordError(f"{path}: empty")
    run = lines[0]
    if run.get("kind") != "run" or run.get("schema") != SCHEMA or not {"id", "config", "provenance"} <= run.keys():
        raise RecordError(f"{path}: line 1 is not the start of a record of schema {SCHEMA}")
    if not isinstance(run["config"], dict) or not isinstance(run["provenance"], dict):
        raise RecordError(f"{path}: line 1 has no configuration or provenance")
    record = RunRecord(path, run)
    for epoch, line in enumerate(lines[1:], 1):
        kind = line.get("kind")
        if record.end is not None:
            raise RecordError(f"{path}: line {epoch + 1} follows the record's end")
        if kind == "epoch" and line.get("epoch") == epoch:
            record.epochs.append(line)
        elif kind == "end" and line.get("status") in STATUSES and isinstance(line.get("summary"), dict):
            record.end = line
        else:
            raise RecordError(f"{path}: line {epoch + 1} is out of place")
    _verify(record, content)
    return record


def _verify(record: RunRecord, content: bytes) -> None:
    """Compares the checksum, which the first records do not have yet."""
    expected = record.end.get("sha256") if record.end else None
    if expected is not None and checksum(content[: content.rstrip().rfind(b"\n") + 1]) != expected:
        raise RecordError(f"{record.path}: edited: its lines do not give the checksum in the last one")


def checksum(lines: bytes) -> str:
    """Returns the checksum that a record's last line holds of the lines above it: 16 hex digits of their SHA-256."""
    return hashlib.sha256(lines).hexdigest()[:16]


def _json_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Returns the lines as objects, without a last one that was cut off while it was written."""
    *texts, cut_off = content.split(b"\n")  # the last one is empty where the file ends with a newline
    lines = []
    try:
        for text in texts:
            lines.append(orjson.loads(text))
    except orjson.JSONDecodeError:
        raise RecordError(f"{path}: line {len(lines) + 1} is not JSON") from None
    with contextlib.suppress(orjson.JSONDecodeError):
        lines.append(orjson.loads(cut_off))
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict):
            raise RecordError(f"{path}: line {number} is not a JSON object")
    return lines


def to_line(content: Mapping[str, Any]) -> str:
    """Returns one line of a record; numbers that JSON has no name for (NaN, infinity) become null."""
    return json.dumps(_finite(content), allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
        replace_file(path, "".join(f"{line}\n" for line in self.lines).encode())

    def append(self, content: Mapping[str, Any]) -> None:
        """Adds one line."""
        line = to_line(content)
        self.lines.append(line)
        with open(self.path, "ab") as file:
            file.write(f"{line}\n".encode())

    def end(self, status: str, summary: Mapping[str, Any]) -> None:
        """Adds the last line and waits until it is on the disk."""
        above = "".join(f"{line}\n" for line in self.lines).encode()
        line = to_line({"kind": "end", "status": status, "summary": summary, "sha256": checksum(above)})
        with open(self.path, "ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` to `path` as a whole or not at all: a temporary file beside it, synced, then renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
