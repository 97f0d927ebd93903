"""Files that say what images show: boxes and labels."""
