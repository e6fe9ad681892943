"""Typed background jobs under structured concurrency."""
