"""The embedded corpus: a probabilistic synchronous grammar whose log-probabilities and entropies are known exactly."""
