"""What is new in an answer, and whether it can be true. Pure."""
