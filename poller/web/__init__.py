"""The page, its JSON, its metrics and its live stream: readers of Redis, and of nothing else."""
