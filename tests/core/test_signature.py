"""Signatures, against the specification's own example and the library that receivers use."""

from __future__ import annotations

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from orchestr8d.core import signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_772_355_600_999


def test_the_example_of_the_specification() -> None:
    signed = signature.sign([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_library_finds_it_genuine() -> None:
    import time

    now = int(time.time() * 1000)
    body = '{"grüße": "\\u0000"}'.encode()
    headers = dict(signature.headers([SECRET], "id-1", now, body))
    assert headers["webhook-timestamp"] == str(now // 1000)
    Verifier(SECRET).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body, {**headers, "webhook-id": "id-2"})


def test_each_of_several_secrets_signs() -> None:
    import time

    secrets = [signature.make_secret(bytes([n]) * 32) for n in range(3)]
    headers = dict(signature.headers(secrets, "m", int(time.time() * 1000), b"{}"))
    assert len(headers["webhook-signature"].split(" ")) == 3
    for secret in secrets:
        Verifier(secret).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(b"{}", headers)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secrets_that_are_made_are_taken(size: int) -> None:
    assert len(signature.key(signature.make_secret(b"x" * size))) == size


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_short", "whsec_!!!!", "whsec_" + "A" * 28, "whsec_ü",
     "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 88, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"],
)  # fmt: skip
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signature.key(text)
