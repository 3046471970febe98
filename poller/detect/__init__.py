"""What an answer says that was not known, and whether it can be true. Pure."""
