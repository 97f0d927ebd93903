"""The command `verydeep`, and `python -m verydeep`."""

import sys


def main() -> None:
    """Run `verydeep.cli.main`; Ctrl-C may also come while its libraries are imported, which takes a moment.

    One that comes while Python itself starts, and imports the three modules that lead here (0.02 s), is Python's own:
    it shows a traceback.
    """
    try:
        from verydeep.machine.standard_streams import open_closed_streams

        open_closed_streams()
        from verydeep.cli import main as run

        run()
    except KeyboardInterrupt:
        from verydeep.machine.errors import say

        say("verydeep: stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
