"""The seven stages of the chain. Each reads, calls what knows no path, and writes."""
