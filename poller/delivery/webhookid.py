"""The key a receiver knows an event by: `webhook-id`. Pure."""


def webhook_id(event_id: str) -> str:
    """Return the receiver's idempotency key: the event id with `~` for its dots.

    No code holds a `~`, so distinct events have distinct keys.
    """
    return event_id.replace(".", "~")


def event_id(webhook_id: str) -> str:
    """Return the event id of which `webhook_id` made a key; an event id stays what it is."""
    return webhook_id.replace("~", ".")
