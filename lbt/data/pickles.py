"""Pickles of arrays, lists and texts, read without running what else a pickle can hold."""

import io
import pickle
import warnings
from typing import Any

import numpy as np

# What NumPy's arrays are made of in a pickle, under the names of NumPy 1 and 2, and bytes written by Python 2.
_ALLOWED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            module = module.replace("numpy.core.", "numpy._core.")
        return super().find_class(module, name)


def arrays(content: bytes) -> Any:
    """Returns what a pickle of plain values and NumPy arrays holds; texts of Python 2 are taken as Latin-1.

    Raises:
        Exception: of any kind: it is damaged, or asks for something else, which is not run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the age of the official files
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
