"""The memory driver: everything in this process, gone with it."""

from taskflow.drivers.memory.driver import MemoryDriver

__all__ = ("MemoryDriver",)
