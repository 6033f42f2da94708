"""What takes too long for ``make test``: independent items of at most an hour, finished ones remembered.

They know the project only by its documented commands and files.
"""
