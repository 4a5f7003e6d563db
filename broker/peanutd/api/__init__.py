"""The gateway's API: HTTPS for the phone app and for programs (README.md is its contract).

The rule it keeps: it runs in a thread and a loop of its own, and asks the broker's loop for what it needs (bridge.py),
so that nobody's page makes a node wait. Here, and in server.py, may be awaited; nowhere else.
"""
