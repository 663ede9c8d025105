"""Samples in memory, and tables read from files."""
