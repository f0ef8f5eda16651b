"""The benchmark: load for OpenAI-compatible servers, and what their readers felt."""
