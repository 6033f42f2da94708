"""``operando doctor``: says what is wrong with this machine before an experiment is left alone on it.

Each check is a function from facts to findings; ``machine.py`` reads the facts, so every verdict is tested
with a machine made of files.
"""
