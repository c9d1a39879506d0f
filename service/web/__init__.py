"""WEB: health, metrics and a read-only JSON API. Reads through `store.queries`; changes nothing."""

from service.web.probes import Probes
from service.web.server import serve

__all__ = ["Probes", "serve"]
