"""`python -m poller.demo`: the same as `poller demo`."""

import sys

from poller.commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
