"""A record's lines: JSON objects, one a line."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

DEEPEST = 40  # levels of lists and objects within a line; this program writes fewer than ten


class RecordError(Exception):
    """A record that cannot be read as one; its text names the file and what is wrong."""


def unix_line_ends(content: bytes) -> bytes:
    """Returns a record's content as it was written, whatever has been made of its line ends since."""
    return content.replace(b"\r\n", b"\n")


def json_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Returns the lines as objects, without a last one that was cut off while it was written.

    Raises:
        RecordError: a line is no JSON object, or one that is nested too deep.
    """
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
        if type(line) is not dict:
            raise RecordError(f"{path}: line {number} is not a JSON object")
    if content.count(b"{") + content.count(b"[") >= len(lines) + DEEPEST:  # else none can be
        for number, line in enumerate(lines, 1):
            if _depth(line) > DEEPEST:
                raise RecordError(f"{path}: line {number} is nested more than {DEEPEST} deep")
    return lines


def _depth(value: Any) -> int:
    """Returns how many lists and objects lie within one another; without recursion, which deep ones break."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


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
