"""Features on other data: appendix B of the paper."""
