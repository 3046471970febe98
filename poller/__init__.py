"""Watches short interest through Futu OpenD and publishes what is newly reported."""

__version__ = "0.1.0"
