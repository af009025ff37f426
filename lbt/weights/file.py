"""The files that hold weights: writing, finding and reading them, and the hash that says whether two hold the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lbt import records
from lbt.errors import UserError, reading
from lbt.files import open_regular, replace_file
from lbt.records import places

SUFFIX = ".safetensors"
SEVERAL = 5  # ids that a message about an ambiguous one names


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        tensors: by name; they are shared with whoever reads the file next and must not be changed.
        metadata: texts; none but perhaps `format` where another program wrote the file.
        sha256: of the tensors.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str

    @property
    def run(self) -> str | None:
        """The id of the run that kept them."""
        return self.metadata.get("id")

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of that run, as its record has it.

        Raises:
            UserError: the file holds none.
        """
        return self._json("config", dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of that run's data, in label order.

        Raises:
            UserError: the file holds none.
        """
        return tuple(self._json("classes", list))

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of the plug-ins that run had loaded; none where the file does not say."""
        return tuple(self._json("plugins", list)) if "plugins" in self.metadata else ()

    @property
    def size(self) -> tuple[int, ...]:
        """What that run's network was built for: height and width in pixels, or tokens of vocabulary and sequence.

        Raises:
            UserError: the file holds none.
        """
        return tuple(self._json("token_size" if "token_size" in self.metadata else "image_size", list))

    def _json(self, key: str, kind: type) -> Any:
        if key not in self.metadata:
            raise UserError(f"{self.path}: says nothing of the run it is from; only init_from takes such a file")
        with reading(self.path):
            found = json.loads(self.metadata[key])
            if not isinstance(found, kind):
                raise ValueError(f"its {key} is no {kind.__name__}")
        return found


def keep(path: Path, network: nn.Module, run: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Writes a network's weights as a whole or not at all.

    Args:
        path: of the file; its folder is made.
        network: with the weights and statistics that are scored.
        run: the first line of the record.
        classes: their names.

    Raises:
        OSError: it cannot be written.
    """
    # Copies: a file holds every tensor in torch's plain layout and by itself, also where two names share one.
    made_by = run["provenance"]
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        "format": "pt",
        "lbt": str(made_by["lbt"]),
        "id": run["id"],
        "config": json.dumps(run["config"]),
        "data_fingerprint": made_by["data_fingerprint"],
        "classes": json.dumps(list(classes)),
        **{key: json.dumps(made_by[key]) for key in ("image_size", "token_size", "vocabulary") if key in made_by},
        "plugins": json.dumps([plugin["name"] for plugin in made_by.get("plugins", [])]),
        "sha256": digest(tensors),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, safetensors.torch.save(tensors, metadata))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256, in hex, over each tensor's name, type, shape and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def find(named: str | Path, results_dir: str | Path) -> Path:
    """Returns the file of a run's weights.

    Args:
        named: the run's id, the beginning of one, or the path of a file.
        results_dir: where the run's results lie.

    Raises:
        UserError: there is no such file, or several runs begin so; one line that says what to do.
    """
    named = str(named)
    if named.endswith(SUFFIX) or "/" in named:
        path = Path(named).expanduser()
        if not named.endswith(SUFFIX):
            raise UserError(f"{named}: expected a run's id or the path of a {SUFFIX} file")
        if not path.exists():
            raise UserError(f"{named}: there is no such file")
        return path.absolute()
    folder = places.weights_folder(results_dir)
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if named and path.stem.startswith(named))
    if len(found) == 1:
        return found[0].absolute()
    if found:
        some = ", ".join(path.stem for path in found[:SEVERAL]) + (", ..." if len(found) > SEVERAL else "")
        raise UserError(f"{named}: the weights of {len(found)} runs begin so: {some}; write more of the id")
    if named and any(path.stem.startswith(named) for path in records.paths(results_dir)):
        raise UserError(f"{named}: this run's weights were not kept; keep=weights in another results_dir keeps them")
    raise UserError(f"{named}: no run whose id begins so has weights in {folder}; a file is named by its path")


def read(path: str | Path) -> Weights:
    """Returns what a file of weights holds; of the file read last, if it has not changed, without reading it again.

    Raises:
        UserError: it is missing, cut off, damaged, or no safetensors file; one line that names it.
    """
    path = Path(path)
    with reading(path):
        state = path.stat()
        return _read(path, (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=1)
def _read(path: Path, _state: tuple[int, ...]) -> Weights:
    with reading(path, "as a safetensors file it is cut off, damaged, or another kind of file"):
        with open_regular(path) as file:  # of a large network more than `read_regular` takes
            content = file.read()
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata, sha256 = header.get("__metadata__", {}), digest(tensors)
    if metadata.get("sha256", sha256) != sha256:
        raise UserError(f"{path}: damaged: its tensors are not those it was written with")
    return Weights(path, tensors, metadata, sha256)
