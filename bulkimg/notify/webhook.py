"""Send a message to a webhook, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping

from bulkimg.notify.message import Message
from bulkimg.notify.post import Patience, post

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """Return the key of a secret: after `whsec_` it is base64, otherwise the text itself. Raises ValueError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError(f"begins with {_PREFIX}, but the rest is not base64")
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`."""
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


async def send(url: str, key: bytes | None, message: Message, patience: Patience) -> str:
    """Send the message. Returns "" or why it was not accepted. All tries have one id, so a receiver knows them again."""
    body = json.dumps(message.body).encode()
    message_id = f"msg_{uuid.uuid4().hex}"

    def headers() -> Mapping[str, str]:
        now = int(time.time())
        made = {"Content-Type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(now)}
        return made if key is None else {**made, "webhook-signature": signature(key, message_id, now, body)}

    return await post(url, body, headers, patience)
