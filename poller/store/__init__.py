"""The shared state: its contract, Redis and a memory twin that keep it."""
