"""From the stream to every endpoint: webhooks and chat."""
