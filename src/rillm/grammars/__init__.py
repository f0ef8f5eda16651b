"""Grammars: what constrains an output, from a request's words to the tokens that may follow."""
