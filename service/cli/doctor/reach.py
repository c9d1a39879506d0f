"""Can a net reach the address in its bundle URLs? Judged by the two addresses, since nobody here can try."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address


async def unreachable(store: str | None, net: str) -> str | None:
    """Why a net at the URL `net` can't reach an object store at the URL `store` (None: AWS's own), in words;
    None where it may. A name that leads nowhere from here may lead somewhere from there."""
    if store is None:
        return None
    host, there = urlsplit(store).hostname or "", urlsplit(net).hostname or ""
    ours, theirs = await _addresses(host), await _addresses(there)
    if not ours or not theirs or any(map(_is_here, theirs)):
        return None
    if all(_only_here(address) for address in ours):
        return f"its bundle URLs name {host}, which is each machine itself; the net is on {there}"
    if all(not a.is_global for a in ours) and all(a.is_global for a in theirs):
        return f"its bundle URLs name {host}, a private address; the net is on {there}, outside"
    return None


async def _addresses(host: str) -> list[Address]:
    """What a name means to this machine; empty when nothing."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _only_here(address: Address) -> bool:
    return address.is_loopback or address.is_unspecified or address.is_link_local


def _is_here(address: Address) -> bool:
    """Only a machine's own addresses can be bound."""
    if _only_here(address):
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
