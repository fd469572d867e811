"""Numbers -> one HTML file that asks for nothing from elsewhere."""
