"""Runs the pipeline on this machine, compiles it for a cluster."""
