"""How much work one grammar may be, wherever it is looked at."""

from __future__ import annotations

from typing import Final

CHECK_CPU_S: Final = 1.0
"""Processor time of reading and trying one grammar; then it is refused."""
CHECK_WALL_S: Final = 20.0
"""Clock time of the same, on a machine that is busy with other things."""
CHECK_MEMORY_BYTES: Final = 2 << 30
"""Memory of the process that tries grammars."""
MAX_LEXER_STATES: Final = 50_000
"""States of the automaton of one grammar, 1 to 2 KB each."""
TRIED_TOKENS: Final = 16
"""Steps taken through a grammar to see whether it can be followed."""
