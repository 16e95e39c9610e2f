"""Running workflows: the workflow file, the worker, the keeper. Only this package starts processes."""

from .local import LocalEngine

__all__ = ["LocalEngine"]
