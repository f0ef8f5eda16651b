"""How a call is written: one module for each kind of syntax."""
