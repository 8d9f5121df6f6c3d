"""From preprocessed text to evaluated models: the fairseq commands that do it, each in a process of its own.

Nothing here imports torch or fairseq.
"""
