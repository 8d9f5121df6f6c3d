"""From raw text to binarized data, and from tokens back to text."""
