"""Prints the source file of every module that the poller imports: an image compiles those."""

import importlib
import pkgutil
import sys

import futu  # noqa: F401  imported late by the service, in a thread

import poller

for module in pkgutil.walk_packages(poller.__path__, "poller."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None) or ""
    if file.startswith(sys.prefix) and file.endswith(".py"):
        print(file)
