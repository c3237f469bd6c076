"""The one error that a user is meant to read."""


class PipelineError(Exception):
    """Bad input or state; the message names what is wrong, where (file, row, column) and the cure."""
