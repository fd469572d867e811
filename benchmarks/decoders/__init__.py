"""Decoders and the same arithmetic in plain Python loops, one function per row of the table."""
