"""Targets as data, what a term costs on them, and the search for the cheapest equal term."""
