"""The ``[device.X]`` tables: one model for each instrument, one file for each kind of instrument."""
