"""Run folders: files that are whole or not there, rows that survive a kill, and a run that can be taken up again."""

from crossguard.runs.files import as_read_back, atomic_folder, safe_name, tidy, write_atomically, write_json
from crossguard.runs.folder import SCHEMA, RunFolder, differences, opened
from crossguard.runs.lock import RunBusy
from crossguard.runs.npz import DAMAGED, npz_bytes, read_npz
from crossguard.runs.rows import Rows, read_rows

__all__ = [
    "DAMAGED",
    "SCHEMA",
    "Rows",
    "RunBusy",
    "RunFolder",
    "as_read_back",
    "atomic_folder",
    "differences",
    "npz_bytes",
    "opened",
    "read_npz",
    "read_rows",
    "safe_name",
    "tidy",
    "write_atomically",
    "write_json",
]
