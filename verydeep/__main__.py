"""The command `verydeep`, and `python -m verydeep`."""

import sys


def main() -> None:
    """Run `verydeep.cli.main`; Ctrl-C may also come while its libraries are imported, which takes a moment."""
    try:
        from verydeep.cli import main as run
    except KeyboardInterrupt:
        print("verydeep: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
