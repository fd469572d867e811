"""Networks that take text beside images, one folder each."""
