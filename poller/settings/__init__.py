"""What the operator wrote, checked once: one frozen value, or every problem with its key."""
