"""Nodes without hardware: the real firmware on MicroPython's unix port, one process a node."""

from tools.fleet.node import FleetError, Node, find_micropython

__all__ = ["FleetError", "Node", "find_micropython"]
