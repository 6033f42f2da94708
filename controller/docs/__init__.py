"""Pages for people: a tutorial that is itself a test, how-tos, explanations, a reference made from code."""
