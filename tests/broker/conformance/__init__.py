"""Conformance: every numbered statement of MQTT 3.1.1 and MQTT 5.0, and what proves it (statements.py)."""
