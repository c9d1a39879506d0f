"""The envelope that FLIP's trusts open."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.adapters.encryption import COHORT_QUERY, PROJECT_ID, Encryptor
from service.errors import Invalid

KEY = base64.b64encode(bytes(range(32))).decode()


def test_a_trust_opens_what_was_sealed() -> None:
    """Opened here by the rule alone, without our own code."""
    envelope = json.loads(base64.b64decode(Encryptor(KEY).encrypt("projekt-ä", PROJECT_ID)))
    assert set(envelope) == {"v", "kid", "iv", "ct"}
    assert (envelope["v"], envelope["kid"]) == (1, "shared")
    nonce, sealed = base64.b64decode(envelope["iv"]), base64.b64decode(envelope["ct"])
    assert len(nonce) == 12
    opened = AESGCM(bytes(range(32))).decrypt(nonce, sealed, b"FLIP|v1|shared|project_id")
    assert opened.decode() == "projekt-ä"


def test_every_envelope_is_another() -> None:
    encryptor = Encryptor(KEY)
    assert encryptor.encrypt("p", PROJECT_ID) != encryptor.encrypt("p", PROJECT_ID)
    assert encryptor.decrypt(encryptor.encrypt("p", PROJECT_ID), PROJECT_ID) == "p"


def test_an_envelope_serves_its_own_context_and_key_only() -> None:
    sealed = Encryptor(KEY).encrypt("p", PROJECT_ID)
    with pytest.raises(Invalid, match="context"):
        Encryptor(KEY).decrypt(sealed, COHORT_QUERY)
    with pytest.raises(Invalid):
        Encryptor(base64.b64encode(b"x" * 32).decode()).decrypt(sealed, PROJECT_ID)


@pytest.mark.parametrize("junk", ["", "###", base64.b64encode(b"{}").decode(), "e30"])
def test_what_is_no_envelope_is_refused(junk: str) -> None:
    with pytest.raises(Invalid):
        Encryptor(KEY).decrypt(junk, PROJECT_ID)


def test_without_a_key_texts_stay_clear() -> None:
    encryptor = Encryptor(None)
    assert not encryptor.has_key
    assert encryptor.encrypt("p", PROJECT_ID) == "p"


@pytest.mark.parametrize("key", ["not base64!", base64.b64encode(b"short").decode()])
def test_an_unusable_key_is_named(key: str) -> None:
    with pytest.raises(Invalid, match="FL_ENCRYPTION__AES_KEY_BASE64"):
        Encryptor(key)
