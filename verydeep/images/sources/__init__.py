"""Where images come from: folders, shards, hub data, digits, single files."""
