"""The start of a node. Rule: never updated over the air, and what cannot start is rescued, not silent."""

import sys

try:
    from node import start

    start.run()
except Exception as e:
    print("main: the node ends:")
    sys.print_exception(e)
    import rescue

    rescue.run(None, "main: %s: %s" % (type(e).__name__, e))
