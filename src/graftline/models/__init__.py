"""Backbones: loading with real weights, preprocessing, layer groups."""
