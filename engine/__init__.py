"""Running workflows: the workflow file, the worker, the keeper. Only this package starts processes."""

from .local import IDLE_SECONDS, LocalEngine

__all__ = ["IDLE_SECONDS", "LocalEngine"]
