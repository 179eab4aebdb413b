"""Find copies of one photograph within and across data sets."""
