"""The command `verydeep`, and `python -m verydeep`."""

import sys


def main() -> None:
    """As `verydeep.cli.main`, whose libraries take a moment to import: Ctrl-C may come then too."""
    try:
        from verydeep.cli import main as run
    except KeyboardInterrupt:
        print("verydeep: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
