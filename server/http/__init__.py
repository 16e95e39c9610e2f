"""How callers reach the server over HTTP (CONTRACT sections 2, 3 and 4).

`gate` stands before every route, `site` is what routes share; `mcp`, `invocations` and `chat` are the three systems.
Nothing of it is loaded for stdio.
"""
