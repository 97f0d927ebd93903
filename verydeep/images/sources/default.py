"""The SOURCE that is taken where none is named: it needs no download (needs no library)."""

DIGITS = "digits"
