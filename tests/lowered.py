"""Runs the poller with few descriptors: `python -m tests.lowered ROLE`; FILES says how many.

The soft limit is half of them: a service raises it.
"""

import os
import resource
import runpy

if __name__ == "__main__":
    files = int(os.environ["FILES"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))
    runpy.run_module("poller", run_name="__main__", alter_sys=True)
