"""The HTTP face: OpenAI-compatible routes over one engine client."""
