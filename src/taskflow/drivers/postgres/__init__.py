"""The PostgreSQL driver, on asyncpg."""

from taskflow.drivers.postgres.driver import PostgresDriver

__all__ = ("PostgresDriver",)
