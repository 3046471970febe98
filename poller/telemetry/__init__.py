"""What happens, as facts; and what the log, systemd and the page make of them."""
