"""How callers reach bilt: configuration, composition, transports, command line. Knows all the other packages."""

from .app import BiltServer, create_server
from .config import Config, ConfigError

__all__ = ["BiltServer", "Config", "ConfigError", "create_server"]
