"""Files: the image store, and the archives (folders and S3 buckets) and manifests that re-scoring reads."""
