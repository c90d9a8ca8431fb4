"""Telling people: the facts of a message, its text, and the targets that it is sent to."""
