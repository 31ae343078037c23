"""How far a label can be trusted: conformal intervals, calibration cells, covariate shift, errors of the labels."""
