"""Twins: physics, wire and instruments. Shares no code with drivers, edge or controller."""
