"""``operando init station`` and ``operando init experiment``: commented files for the instruments at hand."""
