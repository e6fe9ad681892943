"""Whether a server, and our rights on it, are fit to keep jobs in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskflow.drivers.redis.faults import RIGHTS, refused
from taskflow.errors import StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskflow.drivers.redis.store import Store

__all__ = ("check", "examine", "refusal", "warnings")

OLDEST: Final = (6, 2)


async def examine(store: Store, shown: str) -> dict[str, str]:
    """What the server says of itself, when it is fit.

    Args:
        store: Asks it.
        shown: Where it is, without any secret.

    Raises:
        StoreRefusedError: It is not, or does not tell this user.
    """
    try:
        info = await store.info()
    except StoreRefusedError as exc:
        raise _placed(exc, shown) from None
    problem = refusal(info, shown)
    if problem is not None:
        raise problem
    return info


async def check(store: Store, shown: str) -> list[str]:
    """Warn of settings that lose what was accepted, and of messages that do not come through.

    Raises:
        StoreRefusedError: The server is not fit, or the user may not do what a worker does.
    """
    info = await examine(store, shown)
    try:
        keys, messages = await store.refusals()
    except StoreRefusedError as exc:
        raise _placed(exc, shown) from None
    if keys:
        raise refused(shown, f"{keys}: {RIGHTS}")
    return [*warnings(info), *_deafness(messages)]


def _placed(error: StoreRefusedError, shown: str) -> StoreRefusedError:
    return error if shown in error.problem else refused(shown, error.problem)


def refusal(info: Mapping[str, str], shown: str) -> StoreRefusedError | None:
    """Why a server must not be used, if there is a reason.

    Args:
        info: What it says of itself.
        shown: Where it is, without any secret.
    """
    version = info.get("redis_version", "0")
    if "valkey_version" not in info and _numbers(version) < OLDEST:
        return refused(shown, f"Redis {version} is too old: 6.2 or newer is needed")
    if info.get("role", "master") != "master":
        return refused(shown, "this server is a read-only replica: name the master")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        return refused(
            shown, f"maxmemory-policy {policy} throws jobs away when memory is short: "
            "set it to noeviction",
        )  # fmt: skip
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _deafness(refusal: str) -> list[str]:
    """What it means that our messages are refused."""
    if not refusal:
        return []
    return [
        f"redis: no messages: jobs start within a second, not at once; allow the channels ({refusal})"
    ]


def warnings(info: Mapping[str, str]) -> list[str]:
    """Settings that lose what was accepted."""
    found = []
    if info.get("aof_enabled") == "0":
        found.append(
            "redis: no append-only file: jobs since the last snapshot are lost when the server "
            "dies; set appendonly yes"
        )
    elif info.get("aof_last_write_status", "ok") != "ok":
        found.append("redis: the append-only file could not be written: look at the disk")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"redis: maxmemory-policy is {policy}: jobs are safe from it, as none of their keys "
            "expires; noeviction says what is meant"
        )
    return found
