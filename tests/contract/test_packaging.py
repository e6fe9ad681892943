"""The three doors to the contract: the class, ``check_driver`` and ``taskflow driver check``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from examples.dict_driver import open_driver

from taskflow.abc import Capability, Driver
from taskflow.testing.contract import (
    CONTRACT_VERSION,
    DriverContract,
    VirtualClock,
    check_driver,
)

from .broken import DRIVERS

ROOT = Path(__file__).parents[2]


class TestDictDriver(DriverContract):
    """The example passes level 1, and says what it does not declare."""

    def open_driver(self, clock: VirtualClock) -> AbstractAsyncContextManager[Driver]:
        return open_driver(clock)


class TestKnownFailure(DriverContract):
    """A listed failure is expected, not hidden."""

    expected_failures: ClassVar[dict[str, str]] = {
        "listing": "a job stands on two pages",
    }

    @asynccontextmanager
    async def open_driver(self, clock: VirtualClock) -> AsyncIterator[Driver]:
        driver = DRIVERS["PageRepeats"](clock)
        await driver.open()
        yield driver
        await driver.aclose()


def test_a_contract_test_may_not_be_overridden() -> None:
    with pytest.raises(TypeError, match="test_order is a test of the contract"):
        type("TestMine", (DriverContract,), {"test_order": lambda self: None})


def test_expected_failures_name_tests() -> None:
    with pytest.raises(TypeError, match="no test 'nonsense'"):
        type("TestMine", (DriverContract,), {"expected_failures": {"nonsense": "?"}})


def test_a_listed_failure_that_passes_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from examples.dict_driver import open_driver
        from taskflow.testing.contract import DriverContract

        class TestIt(DriverContract):
            expected_failures = {"order": "a reason"}

            def open_driver(self, clock):
                return open_driver(clock)
    """)
    result = pytester.runpytest_inprocess("-k", "test_order", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*order passes: take it off*"])


@pytest.mark.slow("runs the whole contract")
@pytest.mark.timeout(60)
@pytest.mark.anyio
async def test_without_pytest() -> None:
    report = await check_driver(open_driver, programs=4)
    assert (report.driver, report.version, report.passed) == ("dict", CONTRACT_VERSION, True)
    results = {row.name: row.result for row in report.rows}
    assert results["order"] == results["programs"] == "passed"
    assert results["priority"] == results["edges"] == "not declared"
    storage = await check_driver(open_driver, level="storage")
    assert all(not row.capabilities for row in storage.rows)


@pytest.mark.anyio
async def test_what_is_not_declared_is_refused() -> None:
    async with open_driver(VirtualClock()) as driver:
        for capability, call in {
            Capability.CANCEL: driver.cancel(["a"]), Capability.FETCH: driver.fetch(["a"]),
            Capability.PAUSE: driver.pause(["a"]), Capability.COUNTS: driver.stats(),
        }.items():  # fmt: skip
            with pytest.raises(Exception, match=f"the dict driver does not support {capability}"):
                await call


@pytest.mark.slow("runs the whole contract in another process")
@pytest.mark.timeout(90)
def test_from_a_shell() -> None:
    command = [sys.executable, "-m", "taskflow", "driver", "check"]
    good = subprocess.run(
        [*command, "dict_driver:open_driver", "--app-dir", str(ROOT / "examples"), "--json"],
        capture_output=True, text=True, timeout=80,
    )  # fmt: skip
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["driver"] == "dict"
    table = subprocess.run(
        [*command, "dict_driver:open_driver", "--app-dir", str(ROOT / "examples"),
         "--level", "storage", "--backend", "trio"],
        capture_output=True, text=True, timeout=80,
    )  # fmt: skip
    assert "0 failed" in table.stdout
    bad = subprocess.run(
        [*command, "dict_driver:nothing", "--app-dir", str(ROOT / "examples")],
        capture_output=True, text=True, timeout=80,
    )  # fmt: skip
    assert bad.returncode == 2
    assert "has no 'nothing'" in bad.stderr
