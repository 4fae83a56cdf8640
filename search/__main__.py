"""`python -m search`."""

import contextlib
import os
import sys

# Python looks for modules in the current folder first. That may be anyone's; what lies there is data, not code.
with contextlib.suppress(OSError):
    if sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
        del sys.path[0]

from search.cli import main

main()
