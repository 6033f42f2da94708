"""The reduce process: list-mode words of passes in, maps, profiles, x and state of charge out.

``controller.reduce_main`` runs it. Control listens on a Unix socket; frames are a 32-bit big-endian length
and a CBOR map with a kind ``k`` (all of them in edge/ION_BEAM.md, "The reduce process").
"""
