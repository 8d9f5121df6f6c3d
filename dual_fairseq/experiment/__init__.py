"""Experiments: several ways to go on from one warm start, with seeds and significance, in one table."""
