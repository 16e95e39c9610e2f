"""How callers reach the server over HTTP. Nothing of it is loaded for stdio.

A request comes from `listening` to the `gate`, which refuses it or notes who asks; then to its route, which asks `site`
for the caller's desk and does what a tool does.

    start     serve, settings, startup_checks, listening (sockets, uvicorn), connection (how long),
              app (all routes), site (what they share)
    gate      gate, surfaces (who may come how), head, body, whereabouts (hosts and origins), doorman (keys, logins and
              limits), oauth, issuer_keys, identity (who asks), errors, open_requests (what ends with its key), traffic
    /mcp      mcp, mcp_servers (one for each credential), mcp_sessions, mcp_limits, mcp_refusals, rpc_body, rpc_error,
              well_known (where to get a token)
    /v1       invocations, spaces, invocation_request, invocation_models, invocation_view, invocation_failure,
              invocation_cache
    /chat     chat, chat_stream, login (/auth), chat_requests, chat_models, chat_answers, chat_events, chat_reading
    the rest  health, metrics, readiness; openapi, of operations, invocation_operations, chat_operations, error_models
    helpers   parsing (bodies, queries, ids, cursors), holding (an answer for as long as its caller waits)
"""
