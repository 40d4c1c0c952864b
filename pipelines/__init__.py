"""Pipelines: order, gates and resources."""
