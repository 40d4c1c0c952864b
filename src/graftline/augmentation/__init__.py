"""Augmentation policies, how they are applied to batches, and their previews."""
