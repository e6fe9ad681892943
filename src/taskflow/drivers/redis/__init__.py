"""The Redis driver, for Redis 6.2 and Valkey: one namespace, one Lua script an operation."""

from taskflow.drivers.redis.driver import RedisDriver

__all__ = ("RedisDriver",)
