"""How callers reach bilt: configuration, composition, transports, command line. Knows all the other packages.

Its names are looked up when they are used: the small process that every client starts must load none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .app import BiltServer, create_server
    from .config import Config, ConfigError

__all__ = ["BiltServer", "Config", "ConfigError", "create_server"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import app, config

    return getattr(config if name.startswith("Config") else app, name)
