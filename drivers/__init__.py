"""Instruments as plain Python: one file per instrument, wire formats without I/O beside them."""
