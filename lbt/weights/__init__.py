"""Trained weights: kept beside the records, begun from, and loaded. Loading a safetensors file executes nothing.

`keep=weights` writes `<results>/weights/<id>.safetensors` when a run is done: the weights that were scored last, under
the names of the network its task trains (`docs/weights.md`), with what made them as metadata, all of it texts:

- `id`, `config` and `data_fingerprint` as in the record, `classes`: their names in label order, JSON, `image_size`:
  height and width in pixels, JSON (of text `token_size` and `vocabulary`), `lbt`: version, `plugins`: the names of
  those that were loaded, JSON;
- `sha256`: of the tensors (`lbt.weights.file.digest`), by which damage shows, and which is what `init_from` means.
"""

from lbt.weights.file import Weights, find, keep, read
from lbt.weights.loading import its_plugins, load_model, network_of
from lbt.weights.origin import settled
from lbt.weights.transfer import check_vocabulary, classifier, take, told

__all__ = [
    "Weights",
    "check_vocabulary",
    "classifier",
    "find",
    "its_plugins",
    "keep",
    "load_model",
    "network_of",
    "read",
    "settled",
    "take",
    "told",
]
