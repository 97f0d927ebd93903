"""Networks in other formats: written, read back and checked; weights for other libraries."""
