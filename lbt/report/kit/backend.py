"""Matplotlib without a window system."""

import os


def import_matplotlib() -> None:
    """Imports matplotlib whatever `MPLBACKEND` says: a notebook's or a remote shell's may not exist here.

    Figures are drawn into files, by the renderer that the file's ending asks for.
    """
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib  # noqa: F401
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
