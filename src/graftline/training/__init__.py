"""The one training loop, learning-rate schedules, the feature cache and checkpoints."""
