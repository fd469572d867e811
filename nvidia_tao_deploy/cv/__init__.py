"""Computer-vision networks, one folder each."""
