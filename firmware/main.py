"""The start of a node. Rule: never updated over the air; what cannot start is rescued, not silent."""

import sys

try:
    import choice

    sys.path[0] = choice.pick()
    del choice, sys.modules["choice"]
except Exception as e:
    sys.print_exception(e)
try:
    from node import start

    start.run()
except Exception as e:
    print("main: the node ends:")
    sys.print_exception(e)
    why = "main: %s: %s" % (type(e).__name__, e)
    sys.path[0] = ""  # only what `peanut flash` wrote
    try:
        import rescue

        rescue.run(None, why)
    except Exception as e:
        sys.print_exception(e)
        __import__("machine").reset()
