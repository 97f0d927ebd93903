"""The version, once: packaging and run folders read it from here."""

__version__ = "0.1.0"
