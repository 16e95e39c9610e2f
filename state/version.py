"""The version that makes a difference to a store."""

VERSION = "0.1.0"
"""This program's; `pyproject.toml` says the same, and a test holds them equal."""
