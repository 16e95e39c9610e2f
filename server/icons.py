"""The server's icon: small, because the protocol repeats it in every answer of its newer era."""

from __future__ import annotations

from base64 import b64encode

from mcp_types import Icon

_DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" rx="2" fill="#123"/>'
    '<path d="M2 2h2v4H2z" fill="#fa0"/><path d="M5 2h1v4H5z" fill="#fff"/></svg>'
)
"""A step and the wall that stops it."""

ICON = Icon(
    src="data:image/svg+xml;base64," + b64encode(_DRAWING.encode()).decode(),
    mime_type="image/svg+xml",
    sizes=["any"],
)
