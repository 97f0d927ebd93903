"""Where an object is: appendix A of the paper."""
