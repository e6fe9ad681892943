"""What the end-to-end tests share: a place with a store, a ledger and logs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from taskflow import App, JobRecord

from .ledger import VARIABLE, Ledger
from .processes import running_worker, wait_until
from .stores import KINDS, remove_shared, store_url

APP = "tests.integration.stop_jobs:app"


class Place:
    """A folder and a store; its workers log into files of their own.

    Args:
        folder: For ledger and logs.
        url: Of the store. Default: SQLite in the folder.
        app: What its workers serve.
    """

    def __init__(self, folder: Path, url: str | None = None, app: str = APP) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/jobs.db"
        self._app = app
        self.ledger = Ledger(folder / "ledger")

    def app(self) -> App[None]:
        """An app of the test's own process."""
        return App(self.url)

    def worker(
        self, name: str, backend: str, *flags: str, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A worker process."""
        extra = {"TASKFLOW_URL": self.url, VARIABLE: str(self.ledger.path), **environment}
        return running_worker(self._app, "--backend", backend, *flags, log=self.log(name), **extra)

    def log(self, name: str) -> Path:
        """Where that worker logs."""
        return self.folder / f"{name}.log"

    def wait_for(self, name: str, text: str, seconds: float = 20) -> None:
        """Wait until that worker has logged ``text``."""
        wait_until(lambda: text in self.log(name).read_text(), seconds, f"{name} logs {text!r}")

    def wait_ready(self, *names: str) -> None:
        """Wait until these workers claim jobs."""
        for name in names:
            self.wait_for(name, "is ready")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _shared_servers() -> Iterator[None]:
    yield
    remove_shared()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each kind."""
    with store_url(request.param, tmp_path) as found:
        yield found


async def records(place: Place, ids: Sequence[str]) -> dict[str, JobRecord]:
    """These jobs as they are now."""
    found: dict[str, JobRecord] = {}
    async with place.app() as app:
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            for job_id, fetched in zip(part, await app.port.fetch(part), strict=True):
                assert fetched is not None, f"{job_id} is lost"
                found[job_id] = fetched.record
    return found
