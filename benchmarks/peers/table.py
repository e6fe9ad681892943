"""What the rounds come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from .rounds import Standing

__all__ = ("Ratio", "ratios_of", "show")

OURS = "taskflow, "


class Ratio(msgspec.Struct, kw_only=True):
    """taskflow against one peer: the median of the rounds' ratios.

    Attributes:
        target: At least; ``None`` where it is only shown.
    """

    ours: str
    peer: str
    server: str
    value: float
    target: float | None

    @property
    def is_met(self) -> bool:
        """Also where there is no target."""
        return self.target is None or self.value >= self.target


def ratios_of(standings: Sequence[Standing]) -> list[Ratio]:
    """Each event loop against each peer on the same server, round by round."""
    return [
        Ratio(
            ours=ours.entrant, peer=peer.entrant, server=peer.server, target=peer.target,
            value=statistics.median(a / b for a, b in zip(ours.worked, peer.worked, strict=False)),
        )
        for ours in standings
        for peer in standings
        if ours.server == peer.server and ours.worked and peer.worked
        and ours.entrant.startswith(OURS) and not peer.entrant.startswith(OURS)
    ]  # fmt: skip


def show(standings: Sequence[Standing], ratios: Sequence[Ratio]) -> None:
    """Two tables: everybody's medians, and the ratios against their targets."""
    console = Console(highlight=False, width=130)
    rates = Table("store", "library", "version", "enqueue/s", "jobs/s", "from - to",
                  "µs of CPU a job: worker + server", "rounds")  # fmt: skip
    for one in standings:
        if one.worked:
            enqueued = f"{statistics.median(one.enqueued):,.0f}"
            spread = f"{min(one.worked):,.0f} - {max(one.worked):,.0f}"
            worker, server = (statistics.median(part) for part in zip(*one.cpu, strict=True))
            used = f"{worker:,.0f} + {server:,.0f}"
            cells = (enqueued, f"{one.rate:,.0f}", spread, used, str(len(one.worked)))
        else:
            cells = ("", "", "failed", "", "0")
        rates.add_row(one.server, one.entrant, one.version, *cells)
    console.print(rates)
    table = Table("store", "taskflow on", "against", "ratio", "target", "")
    for ratio in ratios:
        target = "" if ratio.target is None else f">= {ratio.target:g} x"
        met = "[green]met[/]" if ratio.is_met else "[red]missed[/]"
        table.add_row(
            ratio.server, ratio.ours.removeprefix(OURS), ratio.peer, f"{ratio.value:.2f} x",
            target, met if target else "",
        )  # fmt: skip
    console.print(table)
