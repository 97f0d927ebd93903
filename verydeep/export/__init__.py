"""Networks in other formats: written, read back, checked."""
