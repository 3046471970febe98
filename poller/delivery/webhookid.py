"""The receiver's idempotency key of an event: `webhook-id`. Pure."""


def webhook_id(event_id: str) -> str:
    """Return the key: the event id with `~` instead of dots.

    No code contains `~`, so distinct events have distinct keys.
    """
    return event_id.replace(".", "~")


def event_id(webhook_id: str) -> str:
    """Return the event id of a key; an event id is returned unchanged."""
    return webhook_id.replace("~", ".")
