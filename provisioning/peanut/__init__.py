"""The operator's command line of Peanut: `peanut`.

Rule of the package: each file is one concept; `cli*.py` and `__main__.py` alone know click; everything below them
takes values and the time as arguments, so that it can be tested without a terminal.
"""

__version__ = "0.1.0"
