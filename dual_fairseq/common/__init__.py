"""Modules for all other folders: errors, files, progress. No torch, no fairseq."""
