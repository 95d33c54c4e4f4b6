"""Formats: each folder reads one (canonicalize) and writes it (reify)."""
