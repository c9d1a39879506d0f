"""Calling a net: the client of the FL-API adapters. Nobody else speaks HTTP to them."""

from service.adapters.client import AdapterClient
from service.adapters.adapters import AdapterClients

__all__ = ["AdapterClient", "AdapterClients"]
