"""ARCHITECTURE.md states which room may import which: the code keeps to it, and the page names no room that is gone."""

import ast
import re

from support import REPOSITORY

PACKAGE = REPOSITORY / "lbt"


def stated():
    """The page's table: room -> rooms it may import."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    table = text[text.index("| room | may import |") :].split("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]*) \|$", table, flags=re.MULTILINE)
    found = {}
    for rooms, allowed in rows:
        for room in re.findall(r"`(\w+)`", rooms):
            assert room not in found, f"{room} is stated twice"
            found[room] = set(re.findall(r"`(\w+)`", allowed))
    return found


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """(line, room) of each import of the package in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lbt":
            parts = node.module.split(".")[1:]
            yield from [(node.lineno, parts[0])] if parts else [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lbt."):
                    yield node.lineno, alias.name.split(".")[1]


def test_every_room_imports_only_what_the_page_allows():
    rules, wrong = stated(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        assert room in rules, f"{path.relative_to(REPOSITORY)}: ARCHITECTURE.md does not know this room"
        allowed = rules[room] | {room}
        wrong += [
            f"{path.relative_to(REPOSITORY)}:{line}: {other}" for line, other in imported(path) if other not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_the_page_allows_nothing_that_is_not_used_and_names_no_room_that_is_gone():
    rules = stated()
    used = {room: set() for room in rules}
    for path in PACKAGE.rglob("*.py"):
        if (room := room_of(path)) in used:
            used[room] |= {other for _, other in imported(path)} - {room}
    there = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert set(rules) == there
    assert {room: allowed - used[room] for room, allowed in rules.items() if allowed - used[room]} == {}


def test_rooms_form_no_circle():
    """But for what a function imports when it is called, no room needs a room that needs it."""
    needs = {}
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lbt":
                parts = node.module.split(".")[1:]
                others = [parts[0]] if parts else [alias.name for alias in node.names]
                needs.setdefault(room, set()).update(other for other in others if other != room)
    while needs:
        free = {room for room, others in needs.items() if not others & needs.keys()}
        assert free, {room: others & needs.keys() for room, others in needs.items()}
        needs = {room: others for room, others in needs.items() if room not in free}
