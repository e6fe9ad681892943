"""The runtime: services in one task group.

Talks to storage only through the port. A service either runs or has ended the worker; none dies
alone. To add one: a class with ``run`` and readiness, a stop test, a place in ``worker.py``.
"""
