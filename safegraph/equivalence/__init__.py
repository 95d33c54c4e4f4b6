"""Equality of graphs and of terms, proved by laws."""
