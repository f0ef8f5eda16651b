"""The decoder in C, compiled on the machine it runs on; the twin of `rillm.models.decoder`."""
