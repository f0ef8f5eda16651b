"""Choosing a checkpoint's format by its own files, and spelling it as the checkpoint does."""
