"""The status page, its JSON API, metrics and live stream. They read from Redis alone."""
