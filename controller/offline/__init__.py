"""Offline reductions: the same kernels as live, on recorded and foreign files."""
