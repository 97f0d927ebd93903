"""What a VGG is: the paper's configurations, the module, its initialisation and its arithmetic."""
