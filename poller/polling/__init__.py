"""From what is due to what is committed: budget, poll loop, lease, watchlist."""
