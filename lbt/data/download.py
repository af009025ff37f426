"""Official files: downloaded whole or not at all, opened only after their checksum."""

import hashlib
import urllib.request
from pathlib import Path

from filelock import FileLock

from lbt.data.cache import replacing
from lbt.errors import UserError, flat

TIMEOUT = 30  # seconds a download may stand still


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify(path: Path, md5: str, remedy: str = "") -> None:
    """Raises UserError unless the file is there with that checksum."""
    if not path.is_file():
        raise UserError(f"{path} is missing: {remedy or 'put the official file there'}")
    if (found := _md5(path)) != md5:
        remedy = remedy or "delete it and run again"
        raise UserError(f"{path} is truncated or not the official file (its MD5 is {found}, not {md5}): {remedy}")


def download(url: str, path: Path, md5: str, remedy: str) -> None:
    """Downloads `url` to `path`, which appears only whole and with the right checksum.

    Raises:
        UserError: no connection, a wrong checksum, or a folder that cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():  # another process fetched it meanwhile
                return
            with replacing(path) as part:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(part, "wb") as file:
                    while block := response.read(1 << 20):
                        file.write(block)
                if (found := _md5(part)) != md5:
                    raise OSError(f"what came is truncated or altered: MD5 {found} instead of {md5}")
    except (OSError, ValueError) as error:  # URLError, timeouts and refused connections are OSErrors
        reason = flat(error)
        raise UserError(f"cannot download {url} ({reason}): put the archive at {path}, {remedy}") from error
