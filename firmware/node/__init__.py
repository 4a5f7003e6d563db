"""The firmware of a Peanut node. Rule: what is pure stays pure; only app.py puts the parts together."""

VERSION = "0.1.0"
