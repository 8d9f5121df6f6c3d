"""A trained pair in use: translate, score, filter, evaluate, tune, export, average."""
