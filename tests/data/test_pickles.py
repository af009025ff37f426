import os
import pickle

import numpy as np
import pytest

from lbt.data.pickles import arrays


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_texts_and_numbers_are_read(protocol):
    held = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3], "filenames": ["a.png", b"b"]}
    found = arrays(pickle.dumps(held, protocol=protocol))
    assert np.array_equal(found.pop("data"), held.pop("data")) and found == held


def test_texts_of_python_2_are_read():
    assert arrays(b"\x80\x02}q\x00U\x06labelsq\x01]q\x02(K\x03K\x04es.") == {"labels": [3, 4]}


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [(os.mkdir, "evil"), (eval, "__import__('os').mkdir('evil')"), (getattr, dict, "get")])
def test_nothing_else_is_called(tmp_path, monkeypatch, call, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="which is no array"):
        arrays(pickle.dumps({"data": Evil(*call)}, protocol=protocol))
    assert os.listdir(tmp_path) == []


def test_numpy_itself_is_no_way_around_it():
    for content in (b"cnumpy\nload\n.", b"cnumpy.core.multiarray\nfromfile\n.", b"cnumpy\nndarray.tofile\n."):
        with pytest.raises(pickle.UnpicklingError, match="which is no array"):
            arrays(content)
