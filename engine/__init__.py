"""Running workflows: the workflow file, the worker, the keeper. Only this package starts processes.

Its names are looked up when they are used: the small process that every client starts needs only the least of them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .identity import code_identity
    from .local import LocalEngine

__all__ = ["LocalEngine", "code_identity"]


def __getattr__(name: str) -> object:
    if name == "code_identity":
        from .identity import code_identity

        return code_identity
    if name == "LocalEngine":
        from .local import LocalEngine

        return LocalEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
