"""Doors to the tools that others use: SECoP, Bluesky, EPICS. None of them is a way around control."""
