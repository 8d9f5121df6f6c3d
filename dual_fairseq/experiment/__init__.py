"""Experiments: several ways to continue from one warm start, with seeds and significance, in one table."""
