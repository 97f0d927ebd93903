"""Messages, as users see them: on one line, and without characters that act on a terminal."""

import re
import sys

from verydeep.machine.standard_streams import silence

_LONGEST = 2000
"""Characters of a message, which may quote a name out of a file of any content."""

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, C1 ones too, except tab and line feed; and those that turn the direction of a text around."""


def escaped(text: str) -> str:
    """Return a text with escapes, as Python and JSON write them, in place of characters that act on a terminal."""
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escaped_line(text: str) -> str:
    """Return a text, escaped, on one line, even if a name in it has line feeds."""
    return escaped(text).replace("\n", "\\n")


def say(line: str) -> None:
    """Print a line to standard error, control characters escaped; if nobody reads it any more, work goes on."""
    try:
        print(escaped_line(line), file=sys.stderr, flush=True)
    except BrokenPipeError:
        silence(sys.stderr)


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, its type if it has none, both ends of it if it is long."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def reason(error: Exception) -> str:
    """Return why something failed; for an error of the system just its words, `No space left on device`."""
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
