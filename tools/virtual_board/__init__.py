"""A board that needs no hardware. Rule: to whoever uses it a port, as a real one; see README.md."""

from .client import VirtualBoard

__all__ = ["VirtualBoard"]
