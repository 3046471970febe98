"""What happens, as facts, and their readers: the log, the counters, systemd, the status report."""
