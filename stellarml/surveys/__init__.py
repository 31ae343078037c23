"""What is known of a survey is data: descriptors, raw readers, cuts."""
