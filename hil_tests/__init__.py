"""The virtual bench and the tests that run whole experiments against it."""
