"""``Worker``: runs an app's jobs."""

from taskflow._worker.worker import Worker

__all__ = ("Worker",)

Worker.__module__ = __name__
