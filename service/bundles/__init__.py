"""Objects: bundles staged for the FL nets, and the results that come back. Only this room speaks S3."""

from service.bundles.bundles import Bundles, ensure_buckets
from service.bundles.staging import StagingLimits

__all__ = ["Bundles", "StagingLimits", "ensure_buckets"]
