"""Networks: the paper's configurations, the architecture as a value, the module, its initialisation and arithmetic."""
