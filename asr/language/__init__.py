"""Texts in, language models out: perplexity, and training."""
