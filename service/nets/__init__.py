"""Calling a net: the client of the FL-API adapters. Nobody else speaks HTTP to them."""

from service.nets.client import AdapterClient
from service.nets.nets import Nets

__all__ = ["AdapterClient", "Nets"]
