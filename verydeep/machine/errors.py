"""Messages of exceptions, as users see them."""


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def reason(error: Exception) -> str:
    """Return why something failed: of an error of the system its words alone, `No space left on device`."""
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
