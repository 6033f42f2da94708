"""The live page: a process that only looks on."""
