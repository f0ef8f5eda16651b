"""What model output means: reasoning, content, tool calls. Standard library only."""
