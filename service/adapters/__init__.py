"""Calling a net: the client of the FL-API adapters. Nobody else speaks HTTP to them."""

from service.adapters.adapters import AdapterClients
from service.adapters.client import AdapterClient

__all__ = ["AdapterClient", "AdapterClients"]
