"""Whether a file lies on a disk that SQLite's locks can be trusted on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ("warnings_for",)

_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)


def warnings_for(path: str) -> list[str]:
    """One line where the file lies on a network file system, whose locks do not hold."""
    kind = _file_system(path)
    if kind not in _REMOTE:
        return []
    return [f"{path} lies on {kind}: SQLite needs a local disk, move the file to one"]


def _file_system(path: str) -> str:
    """The type of the file system, where the system says it; else empty."""
    try:
        device = os.stat(path).st_dev
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""
