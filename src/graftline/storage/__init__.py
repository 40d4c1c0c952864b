"""The object store: the only code that touches S3, and the embedded S3 server."""
