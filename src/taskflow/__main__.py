"""``python -m taskflow``: the command line."""

from __future__ import annotations

from taskflow._cli.main import main

__all__ = ("main",)

if __name__ == "__main__":
    main()
