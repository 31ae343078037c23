"""What stellarml knows of a survey, and how its files become tables."""
