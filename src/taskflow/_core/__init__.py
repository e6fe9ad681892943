"""The law of jobs: pure functions and data.

Imports msgspec and the standard library, and neither AnyIO nor a clock: instants, durations and
random numbers are passed in. A job changes state only by an entry in ``states.TRANSITIONS``. To
add a state: that table, the drivers' schema and the reference model, in one change.
"""
