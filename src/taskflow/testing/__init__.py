"""For tests: of drivers, and of programs that use taskflow.

``taskflow.testing.contract`` holds drivers to the contract (extra ``testing``);
``taskflow.testing.faults`` plants faults; ``taskflow.testing.simulate`` runs days in seconds.
"""

from taskflow.testing.clock import VirtualClock
from taskflow.testing.worker import assert_dispatched, dispatched, drain

__all__ = ("VirtualClock", "assert_dispatched", "dispatched", "drain")
