"""Values in weights: one adapter a value, trained apart, combined with free weights."""
