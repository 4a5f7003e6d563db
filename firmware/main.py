"""The start of a node. Rule: never updated over the air, and nothing that goes wrong goes unsaid."""

import sys

try:
    from node import start

    start.run()
except Exception as e:
    print("main: the node ends:")
    sys.print_exception(e)
    sys.exit(1)
