"""Benchmarks that a user can run: contenders in processes of their own, alternating rounds, medians, peak memory."""
