"""A net is warned of when the address in its bundle URLs can't lead it to the object store."""

from __future__ import annotations

import pytest

from service.cli.doctor.reach import unreachable

FAR = "http://203.0.113.7:8000"  # for documentation: no machine has it
PUBLIC = "http://8.8.8.8:8000"


@pytest.mark.parametrize(
    ("store", "net", "word"),
    [
        ("http://localhost:8333", FAR, "localhost"),
        ("http://127.0.0.1:8333", FAR, "127.0.0.1"),
        ("http://[::1]:8333", FAR, "::1"),
        ("http://0.0.0.0:8333", FAR, "0.0.0.0"),
        ("http://10.20.30.40:8333", PUBLIC, "private"),
    ],
)
async def test_an_address_that_leads_the_net_elsewhere_is_named(
    store: str, net: str, word: str
) -> None:
    message = await unreachable(store, net)
    assert message is not None
    assert word in message


@pytest.mark.parametrize(
    ("store", "net"),
    [
        (None, FAR),
        ("http://127.0.0.1:8333", "http://localhost:8000"),
        ("http://127.0.0.1:8333", "http://127.0.0.1:8000"),
        ("http://10.20.30.40:8333", "http://10.20.30.41:8000"),
        ("http://8.8.4.4:8333", FAR),
        ("http://no-such-host.invalid", FAR),
        ("http://127.0.0.1:8333", "http://no-such-host.invalid"),
    ],
)
async def test_an_address_that_may_lead_there_is_not(store: str | None, net: str) -> None:
    assert await unreachable(store, net) is None
