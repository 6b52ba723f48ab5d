"""Arithmetic that a few families need, a file a variant, each behind one value of one switch of `Config`."""
