"""peanutd: the gateway daemon of Peanut.

The rule it keeps: nothing happens on import. `python -m peanutd` and the console script start at `__main__`.
"""

__version__ = "0.1.0"
