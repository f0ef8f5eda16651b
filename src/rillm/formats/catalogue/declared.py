"""Formats that a checkpoint declares itself: their descriptions come from `resolve_template`."""

from typing import Final

from rillm.formats.description import Evidence, Format

FORMATS: Final = (
    Format(
        names=("hf", "beam"),
        reasoning_names=("hf", "beam"),
        family="Beam, and every checkpoint with a response_template",
        from_checkpoint=True,
        mixes=False,
        evidence=Evidence(names=("beam",)),
    ),
)
