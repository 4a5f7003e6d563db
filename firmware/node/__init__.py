"""The firmware of a Peanut node. Rule: what is pure stays pure; only app.py puts the parts together."""

VERSION = "0.1.0"
BUILT = 1767225600  # 2026-01-01: before this version was made, and raised with each; no node lives before it
