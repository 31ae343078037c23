"""Match, margin, train and label on any table, without a chain."""
