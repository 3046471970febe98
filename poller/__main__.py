"""`python -m poller` is the console script `poller`."""

from poller.cli import main

main()
