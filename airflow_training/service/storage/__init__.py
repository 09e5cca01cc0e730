"""The S3 endpoint of the service, the buckets of the tenants behind it, and the files of jobs in them."""
