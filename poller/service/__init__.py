"""What makes a process a service: reports, metrics, reload, the systemd unit."""
