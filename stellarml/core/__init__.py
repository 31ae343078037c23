"""What everything rests on: configuration, errors, columns, tiles, the sphere. Imports nothing of stellarml."""
