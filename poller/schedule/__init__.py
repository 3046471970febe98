"""Who is asked next, and why: calendar, learned hours, sweeps. Pure."""
