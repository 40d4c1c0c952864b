"""Pipelines on a cluster: compiled, submitted, followed, scheduled."""
