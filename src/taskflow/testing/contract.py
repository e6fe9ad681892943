"""The contract that every driver is held to, as tests that you run on yours.

In a test module::

    from taskflow.testing.contract import DriverContract

    class TestMyDriver(DriverContract):
        @asynccontextmanager
        async def open_driver(self, clock):
            async with my_driver(clock=clock) as driver:  # open, and on an empty store
                yield driver

Without pytest: ``await check_driver(open_driver)``; from a shell: ``taskflow driver check
my_package:open_driver``. Needs the extra ``taskflow-anyio[testing]``.

*Level 1* (storing, claiming, leases, settling) must pass for every driver; the rest by the
capabilities that it declares. Random programs compare the driver with a reference model after each
call, plain and with planted faults; concurrent ones check invariants on what all callers saw.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import anyio
import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from taskflow.abc import Capability
from taskflow.testing import examples_flows, examples_people, examples_storage
from taskflow.testing.bench import Bench, ContractError
from taskflow.testing.checks import CHECKS, Check, OpenDriver
from taskflow.testing.clock import VirtualClock
from taskflow.testing.draws import Draws, HypothesisDraws, SeededDraws
from taskflow.testing.faults import FaultyDriver
from taskflow.testing.histories import History
from taskflow.testing.programs import Program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from taskflow.abc import Driver

__all__ = (
    "CONTRACT_VERSION",
    "ContractError",
    "DriverContract",
    "Report",
    "Row",
    "VirtualClock",
    "check_driver",
)

CONTRACT_VERSION: Final = 1
"""Grows with every change that can turn a passing driver red."""
STEPS: Final = 30
"""Commands of a program. Fixed: short ones miss the hardest faults."""
_EXAMPLES: Final = (examples_storage, examples_people, examples_flows)


async def _plain(open_driver: OpenDriver, draws: Draws) -> None:
    clock = VirtualClock()
    async with open_driver(clock) as driver:
        await Program(Bench(driver, clock), draws).run(STEPS)


async def _faulted(open_driver: OpenDriver, draws: Draws) -> None:
    clock = VirtualClock()
    async with open_driver(clock) as driver:
        faulty = FaultyDriver(driver, draws=SeededDraws(draws.integer(0, 1 << 30)))
        await Program(Bench(faulty, clock), draws).run(STEPS)


async def _concurrent(open_driver: OpenDriver, draws: Draws) -> None:
    clock = VirtualClock()
    async with open_driver(clock) as driver:
        faulty = FaultyDriver(driver, seed=draws.integer(0, 1 << 30), percent=10)
        await History(faulty, clock, draws).run(STEPS)


PROGRAMS: Final[Mapping[str, tuple[Callable[[OpenDriver, Draws], Awaitable[None]], float]]] = {
    "programs": (_plain, 0.4),
    "faulted_programs": (_faulted, 0.2),
    "concurrent_programs": (_concurrent, 0.1),
}
"""Programs by name, and how many of the Hypothesis profile's examples each runs."""


async def _run_check(one: Check, open_driver: OpenDriver) -> bool:
    """Run an example; False when the driver does not declare what it is about."""
    clock = VirtualClock()
    async with open_driver(clock) as driver:
        _check_declared(driver)
        if not one.needs <= driver.capabilities:
            return False
        await one.run(Bench(driver, clock))
    return True


def _check_declared(driver: Driver) -> None:
    unknown = set(driver.capabilities) - set(Capability)
    if unknown or not driver.name:
        raise ContractError(
            f"{driver!r} declares {unknown}, which is no Capability, or has no name"
        )


class DriverContract:
    """Subclass it, name the class ``Test…``, and define ``open_driver``.

    Attributes:
        expected_failures: Tests that fail for a known reason, by name without ``test_``; one that
            passes is an error.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    pytestmark = [pytest.mark.anyio]

    def open_driver(self, clock: VirtualClock) -> AbstractAsyncContextManager[Driver]:
        """An open driver on an empty store that lives by ``clock``.

        A driver whose server has the clock adds ``clock.offset`` (seconds) to it.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [name for name in vars(cls) if name.startswith("test_") and name in _NAMES]
        if own:
            raise TypeError(
                f"{cls.__qualname__}.{own[0]} is a test of the contract and may not be overridden; "
                "list it in `expected_failures` with a reason"
            )
        unknown = [name for name in cls.expected_failures if f"test_{name}" not in _NAMES]
        if unknown:
            raise TypeError(f"{cls.__qualname__}.expected_failures: no test {unknown[0]!r}")

    async def _judge(self, name: str, run: Awaitable[bool]) -> None:
        reason = self.expected_failures.get(name)
        try:
            has_run = await run
        except Exception as exc:
            if reason is None:
                raise
            pytest.xfail(f"{reason} ({type(exc).__name__})")
        if not has_run:
            pytest.skip("not declared by the driver")
        if reason is not None:
            pytest.fail(f"{name} passes: take it off `expected_failures`")


def _example_test(one: Check) -> Callable[[DriverContract], Awaitable[None]]:
    async def test(self: DriverContract) -> None:
        await self._judge(one.name, _run_check(one, self.open_driver))

    test.__doc__ = one.says
    return test


def _program_test(
    name: str, run: Callable[[OpenDriver, Draws], Awaitable[None]], share: float
) -> Callable[..., Any]:
    count = max(10, round(hypothesis.settings().max_examples * share))

    @hypothesis.settings(
        deadline=None, max_examples=count, suppress_health_check=cast("list[HealthCheck]", list(HealthCheck)),
        # Without the explain phase, which takes a minute for a long program.
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(data=st.data())
    def test(self: DriverContract, anyio_backend: Any, data: Any) -> None:
        # An event loop for each program: Hypothesis stops one by a BaseException of its own.
        backend, options = (
            (anyio_backend, None) if isinstance(anyio_backend, str) else anyio_backend
        )

        async def program() -> None:
            await self._judge(name, _true_after(run(self.open_driver, HypothesisDraws(data))))

        anyio.run(program, backend=backend, backend_options=options)

    program_test: Callable[..., Any] = test
    return program_test


async def _true_after(run: Awaitable[None]) -> bool:
    await run
    return True


def _fill() -> frozenset[str]:
    for one in CHECKS.values():
        setattr(DriverContract, f"test_{one.name}", _named(_example_test(one), one.name))
    for name, (run, share) in PROGRAMS.items():
        setattr(DriverContract, f"test_{name}", _named(_program_test(name, run, share), name))
    return frozenset(f"test_{name}" for name in (*CHECKS, *PROGRAMS))


def _named(test: Callable[..., Any], name: str) -> Callable[..., Any]:
    test.__name__ = f"test_{name}"
    test.__qualname__ = f"DriverContract.test_{name}"
    return test


_NAMES: Final = _fill()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One test's result: ``passed``, ``failed`` or ``not declared``."""

    name: str
    capabilities: tuple[str, ...]
    result: str
    problem: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver does of the contract."""

    driver: str
    version: int
    seed: int
    rows: list[Row]

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return all(row.result != "failed" for row in self.rows)


async def check_driver(
    open_driver: OpenDriver, *, level: str = "full", seed: int = 0, programs: int = 40,
    fail_fast: bool = False,
) -> Report:  # fmt: skip
    """Hold a driver to the contract without pytest, on the running event loop.

    Args:
        open_driver: ``open_driver(clock)``, an async context manager around an open driver on an
            empty store; entered once for each test.
        level: ``storage`` for level 1 only, or ``full``.
        seed: The same seed runs the same programs.
        programs: How many plain programs; half as many with faults, a quarter concurrent.
        fail_fast: Stop at the first failure.

    Returns:
        A row for each test. A failed one has the expected and the found value, and the program.
    """
    name = "driver"
    async with open_driver(VirtualClock()) as driver:
        name = driver.name
    rows: list[Row] = []
    for row in _rows(open_driver, level, seed, programs):
        rows.append(await row)
        if fail_fast and rows[-1].result == "failed":
            break
    return Report(driver=name, version=CONTRACT_VERSION, seed=seed, rows=rows)


def _rows(
    open_driver: OpenDriver, level: str, seed: int, programs: int
) -> Iterator[Awaitable[Row]]:
    for one in CHECKS.values():
        if level == "full" or not one.needs:
            yield _row(one.name, one.needs, functools.partial(_run_check, one, open_driver))
    counts = dict(zip(PROGRAMS, (programs, programs // 2, programs // 4), strict=True))
    for program, (run, _) in PROGRAMS.items() if level == "full" else ():
        many = functools.partial(_many, run, open_driver, seed, counts[program])
        yield _row(program, frozenset(), many)


async def _many(
    run: Callable[[OpenDriver, Draws], Awaitable[None]], open_driver: OpenDriver, seed: int,
    count: int,
) -> bool:  # fmt: skip
    for number in range(count):
        await run(open_driver, SeededDraws(seed + number))
    return True


async def _row(name: str, needs: frozenset[Capability], run: Callable[[], Awaitable[bool]]) -> Row:
    words = tuple(sorted(str(need) for need in needs))
    try:
        has_run = await run()
    except Exception as exc:
        problem = f"{type(exc).__name__}: {exc}"
        return Row(name=name, capabilities=words, result="failed", problem=problem)
    return Row(name=name, capabilities=words, result="passed" if has_run else "not declared")
