"""KFP components, one file per step: artifacts to paths and back, nothing else."""
