"""Tool parsers written for vLLM, in the place of rillm's own formats."""
