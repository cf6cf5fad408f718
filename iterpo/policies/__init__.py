"""Versioned adapters: what a policy version is on disk, how it is proved, and whether it may serve."""
