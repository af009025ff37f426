"""Hashes of the records that are vouched for: `<results_dir>/runs/MANIFEST.sha256`, to be committed beside them.

A line a final record, as `sha256sum` writes and `sha256sum --check` reads them: 64 hex digits, two blanks and
`<experiment>/<id>.jsonl`. What is hashed has Unix's line ends. A record that is not named is not vouched for; one that
was changed after it was named is found whatever checksum it holds itself.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from lbt import records
from lbt.errors import UserError
from lbt.files import read_regular
from lbt.records.consistency import contradiction
from lbt.records.lines import unix_line_ends

NAME = "MANIFEST.sha256"
_LINE = re.compile(r"([0-9a-f]{64})[ \t]+\*?([^/]+/[^/]+\.jsonl)")


def path_of(results_dir: str | Path) -> Path:
    """Returns where the manifest lies."""
    return Path(results_dir) / "runs" / NAME


def read(results_dir: str | Path) -> dict[str, str]:
    """Returns the hashes by the records' names, `<experiment>/<id>.jsonl`; empty where there is no manifest.

    Raises:
        UserError: the file is no manifest.
    """
    path = path_of(results_dir)
    if not path.exists():
        return {}
    try:
        lines = read_regular(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    hashes = {}
    for number, line in enumerate(lines, 1):
        if not (found := _LINE.fullmatch(line.strip())):
            raise UserError(f"{path}: line {number} is not a hash and a record's name")
        if hashes.setdefault(found[2], found[1]) != found[1]:
            raise UserError(f"{path}: line {number}: {found[2]} has two hashes")
    return hashes


def hash_of(content: bytes) -> str:
    """Returns the hash of a record's content."""
    return hashlib.sha256(unix_line_ends(content)).hexdigest()


def name_of(record: Path) -> str:
    """Returns what a manifest calls a record."""
    return f"{record.parent.name}/{record.name}"


def difference(record: Path, content: bytes, hashes: dict[str, str]) -> str | None:
    """Returns in words that a record is not the one that the manifest vouches for; None where it is, or none is named.

    Args:
        record: its path.
        content: its file's.
        hashes: of `read`.
    """
    expected = hashes.get(name_of(record))
    if expected is None or hash_of(content) == expected:
        return None
    return f"edited: not what runs/{NAME} vouches for; if the change is meant, lbt verify --write-manifest"


def write(results_dir: str | Path) -> dict[str, str]:
    """Writes the manifest anew, of all records that are whole and final, and returns what it holds."""
    hashes = {}
    for path in records.paths(results_dir):
        with suppress(Exception):  # whatever is wrong with one, it is not vouched for
            content = read_regular(path)
            record = records.parse(path, content)
            if record.status in records.FINAL and contradiction(record) is None:
                hashes[name_of(path)] = hash_of(content)
    text = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    records.replace_file(path_of(results_dir), text.encode())
    return hashes
