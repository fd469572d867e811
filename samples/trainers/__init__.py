"""One module per sample network: its layers, its training and its export."""
