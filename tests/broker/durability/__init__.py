"""Promises across crashes: everything here ends the gateway without a warning and counts what came of it."""
