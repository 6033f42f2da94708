"""Runs that are killed, and disks that lose what was not synced: what must still be true afterwards."""
