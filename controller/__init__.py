"""The host: configuration, run engine, guard, journal, publishing, commands."""
