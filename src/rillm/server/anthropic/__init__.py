"""Anthropic's Messages API: an encoder, and what it takes to read its requests as chat."""
