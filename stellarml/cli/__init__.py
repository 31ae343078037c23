"""Every process that starts here: commands, options, exit status, workers."""
