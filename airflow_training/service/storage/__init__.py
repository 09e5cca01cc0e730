"""The S3 endpoint of the tenants, and the buckets behind it."""
