"""`lbt init DIR`: a small folder of one's own to begin with, an optimizer, an experiment and a table that work."""

from pathlib import Path

from lbt.errors import UserError
from lbt.files import replace_file

EXAMPLE = Path(__file__).parent / "example"


def write(given: str) -> int:
    """Writes the example into a folder, which is made; prints its files and what to do next; returns the exit code.

    Args:
        given: the folder.

    Raises:
        UserError: it is a file, or has one of the files already; nothing is written.
    """
    folder = Path(given).expanduser()
    files = sorted(path for path in EXAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = [path.relative_to(EXAMPLE) for path in files]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{given}: is a file; lbt init writes a folder")
    for name in names:
        if (folder / name).exists():
            raise UserError(f"{folder / name}: is there already; lbt init writes over nothing, name another folder")
    for path, name in zip(files, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, path.read_bytes())
        print(folder / name)
    print(f"{folder / 'README.md'} has the commands, to be called in {folder}")
    return 0
