"""The envelope in which FLIP's trusts expect a project id (and, by a net's setting, a cohort query).

AES-256-GCM with a 12-byte random nonce, the tag appended to the ciphertext, and the additional data
`FLIP|v1|shared|<context>`; base64 of the JSON object `{v: 1, kid: "shared", iv, ct}` whose `iv` and `ct`
are base64 too. The context is not carried in the envelope, so that what was encrypted as one thing can't be
decrypted as another. Without a key texts go out clear; `fl-jobs doctor` warns of that.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import Invalid

PROJECT_ID: Final = "project_id"
COHORT_QUERY: Final = "cohort_query"

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KID: Final = "shared"


class Encryptor:
    """Encrypts and decrypts texts with one key; without a key both give back the text as it is."""

    def __init__(self, key_base64: str | None) -> None:
        """Raises errors.Invalid when the key is not base64 of 32 bytes."""
        self._cipher = None if not key_base64 else AESGCM(_key(key_base64))

    @property
    def has_key(self) -> bool:
        return self._cipher is not None

    def encrypt(self, text: str, context: str) -> str:
        """The envelope of `text`, different at every call."""
        if self._cipher is None:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._cipher.encrypt(nonce, text.encode(), _associated(context))
        envelope = {"v": 1, "kid": _KID, "iv": _base64(nonce), "ct": _base64(ciphertext)}
        return _base64(json.dumps(envelope, separators=(",", ":")).encode())

    def decrypt(self, encrypted: str, context: str) -> str:
        """The text of an envelope.

        Raises:
            Invalid: it is no such envelope, was encrypted for another context or by another key.
        """
        if self._cipher is None:
            return encrypted
        try:
            envelope = json.loads(base64.b64decode(encrypted, validate=True))
            if envelope["v"] != 1 or envelope["kid"] != _KID:
                raise Invalid("the envelope has another version or key id")
            nonce = base64.b64decode(envelope["iv"], validate=True)
            content = base64.b64decode(envelope["ct"], validate=True)
            return self._cipher.decrypt(nonce, content, _associated(context)).decode()
        except (ValueError, KeyError, TypeError, InvalidTag) as exc:
            raise Invalid("the envelope can't be opened with this key and context") from exc


def _associated(context: str) -> bytes:
    return f"FLIP|v1|{_KID}|{context}".encode()


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Invalid("FL_ENCRYPTION__AES_KEY_BASE64 is not base64") from exc
    if len(key) != _KEY_BYTES:
        raise Invalid(
            f"FL_ENCRYPTION__AES_KEY_BASE64 holds {len(key)} bytes, a key has {_KEY_BYTES}: "
            "make one with `openssl rand -base64 32`"
        )
    return key


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
