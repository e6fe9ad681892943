"""The SQLite driver: one file, no server, many processes on one machine."""

from taskflow.drivers.sqlite.driver import SqliteDriver

__all__ = ("SqliteDriver",)
