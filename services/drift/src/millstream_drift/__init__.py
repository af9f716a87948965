"""drift judges: predictions against their labels and the reference of their model, window by window."""
