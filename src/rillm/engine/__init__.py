"""The engine: token ids in, token deltas out. It knows no text.

Two halves. `client` lives in the caller's event loop and never imports torch; `core` owns the
model, the KV cache and the step loop, normally in a process of its own. `messages` is all that
passes between them.
"""
