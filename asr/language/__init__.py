"""Texts in, language models out: their sentences, the check against leaks, perplexity, and training."""
