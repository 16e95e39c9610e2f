"""The server's icon: small, because the protocol repeats it in every answer of its newer era."""

from __future__ import annotations

from urllib.parse import quote

from mcp_types import Icon

_DRAWING = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><path fill='#fa0' d='M2 2h2v4H2z'/>"
    "<path fill='#888' d='M5 2h1v4H5z'/></svg>"
)
"""A step and the wall that stops it."""

ICON = Icon(src="data:image/svg+xml," + quote(_DRAWING, safe="=/:'"), mime_type="image/svg+xml")
