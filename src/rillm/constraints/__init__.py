"""Constraints on outputs: from what a request says to a grammar that llguidance follows."""
