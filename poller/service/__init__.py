"""The composition root: a role's components, its status report, reload, the systemd unit."""
