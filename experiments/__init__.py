"""The experiments, one file each; installed as ``c10k_probe.experiments``."""
