"""The verbs of the command line, one short function each; heavy imports are inside them."""
