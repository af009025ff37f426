"""Running out of memory."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether `error` is torch's running out of memory, on a GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "CUDA error: out of memory" in said)
