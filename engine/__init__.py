"""Running workflows: the workflow file, the worker, the keeper. Only this package starts processes.

Its names are looked up when they are used: the small process that every client starts needs only the least of them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .identity import code_identity
    from .local import LocalEngine
    from .span_sender import SpanSender
    from .tracing import trace_settings

__all__ = ["LocalEngine", "SpanSender", "code_identity", "trace_settings"]


def __getattr__(name: str) -> object:
    if name == "code_identity":
        from .identity import code_identity

        return code_identity
    if name == "LocalEngine":
        from .local import LocalEngine

        return LocalEngine
    if name == "SpanSender":
        from .span_sender import SpanSender

        return SpanSender
    if name == "trace_settings":
        from .tracing import trace_settings

        return trace_settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
