"""Sources, checks, splits, shards and versions of image data."""
