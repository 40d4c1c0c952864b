"""Metrics with intervals, calibration and the report."""
