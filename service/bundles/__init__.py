"""Objects: bundles staged for the FL nets, and the results that come back. Only this room speaks S3."""

from service.bundles.bundles import S3Bundles, ensure_buckets
from service.bundles.staging import StagingLimits

__all__ = ["S3Bundles", "StagingLimits", "ensure_buckets"]
