"""The formats themselves: data, one module for each family."""
