"""What networks of one family share: datasets, metrics and writers named by the family's spec keys."""
