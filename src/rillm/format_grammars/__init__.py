"""What a model may write, as grammars made from the descriptions of formats and from schemas."""
