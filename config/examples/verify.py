"""The receiver's half of a webhook in Python: verify(secret, headers, body) returns the event.

Copy the function into your receiver; it raises ValueError for what does not come from the poller.
"""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

OLDEST = 300  # seconds


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401
    """Return the event, or raise ValueError; `headers` in lower case, `body` as it was received."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    good = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    same = [hmac.compare_digest(good, s.encode()) for s in headers["webhook-signature"].split()]
    if not any(same) or abs(time.time() - int(headers["webhook-timestamp"])) > OLDEST:
        raise ValueError("not from the poller, or more than five minutes old")
    return json.loads(body)
