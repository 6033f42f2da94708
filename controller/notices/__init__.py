"""Notifications: a process that reads the journal and tells people by webhook and e-mail. See README.md."""
