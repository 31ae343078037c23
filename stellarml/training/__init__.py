"""From labelled stars to a bundle: the networks, how they are fitted and how they are calibrated."""
