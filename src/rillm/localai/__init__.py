"""A backend of LocalAI over gRPC; the same engine and the same events as over HTTP."""
