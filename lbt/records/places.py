"""Where the files of a run lie that are no results: its checkpoint and its lock."""

from pathlib import Path


def work_folder(results_dir: str | Path) -> Path:
    """Returns the folder of checkpoints and locks; nothing in it is a result."""
    return Path(results_dir) / "work"


def checkpoint_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns where a run's checkpoint lies."""
    return work_folder(results_dir) / f"{run_id}.pt"


def lock_of(results_dir: str | Path, run_id: str) -> Path:
    """Returns the file whose lock a process holds while it executes the run."""
    return work_folder(results_dir) / f"{run_id}.lock"
