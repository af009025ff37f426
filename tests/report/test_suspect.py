"""Records of small images in bf16 on a CPU from before their gradients were mended are named where they are shown."""

import json

import pytest
from support import run_tiny

from lbt import records
from lbt.report.frame import load


@pytest.mark.parametrize(
    ("precision", "layers", "resolution", "suspect"),
    [("bf16", None, 8, True), ("bf16", ["conv1"], 8, False), ("fp32", None, 8, False), ("bf16", None, 32, False)],
)
def test_a_run_is_suspect_by_precision_device_size_and_provenance(tmp_path, precision, layers, resolution, suspect):
    path = run_tiny(tmp_path, f"precision={precision}", f"data.resolution={resolution}", "epochs=1").path
    first, *lines = path.read_text().splitlines()
    first = json.loads(first)
    first["provenance"].pop("float32_layers", None)
    if layers is not None:
        first["provenance"]["float32_layers"] = layers
    above = "".join(f"{line}\n" for line in (json.dumps(first), *lines[:-1]))
    end = {key: value for key, value in json.loads(lines[-1]).items() if key != "sha256"}
    path.write_text(f"{above}{json.dumps(end)}\n")
    assert records.read(path).status == "done"
    assert load(tmp_path).runs["suspect"].tolist() == [suspect]
