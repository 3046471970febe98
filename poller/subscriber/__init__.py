"""The reader's half: `subscribe`."""
