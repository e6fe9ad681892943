"""Where the peers are installed, and how: npm and pip, into a folder of the user's cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

__all__ = ("Peers", "cache_folder")

NODE_PACKAGES = ("bullmq", "ioredis", "graphile-worker")
PYTHON_PACKAGES = ("taskiq", "taskiq-redis", "redis[hiredis]", "pgqueuer", "asyncpg", "uvloop")
MINUTES = 10


def cache_folder() -> Path:
    """The default: it survives a clean tree, and the repository holds nothing of others."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "taskflow-benchmarks"


class Peers:
    """What is installed in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.modules = self.folder / "node_modules"
        self.python = self.folder / "venv" / "bin" / "python"
        self.node = shutil.which("node")

    def install(self) -> None:
        """The newest releases; what is there already is kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.which("npm") is None:
            print("npm is not installed: no BullMQ and no graphile-worker", file=sys.stderr)
        elif not all((self.modules / name).is_dir() for name in NODE_PACKAGES):
            (self.folder / "package.json").write_text('{"private": true}\n')
            self._run("npm", "install", "--no-audit", "--no-fund", *NODE_PACKAGES)
        if not self.python.exists():
            self._run(sys.executable, "-m", "venv", str(self.folder / "venv"))
        self._run(str(self.python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES)

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, cwd=self.folder, timeout=60 * MINUTES, stdout=sys.stderr)

    def version(self, package: str) -> str | None:
        """``None`` where it is not installed, or what runs it is missing."""
        if package in NODE_PACKAGES:
            described = self.modules / package / "package.json"
            if self.node is None or not described.exists():
                return None
            return str(msgspec.json.decode(described.read_bytes())["version"])
        name = re.sub(r"[-_.]+", "_", package)
        found = self.folder.glob(f"venv/lib/python3*/site-packages/{name}-*.dist-info")
        return next((one.name.split("-")[1].removesuffix(".dist") for one in found), None)
