"""Tables of known contents, questions to them, and the right answers."""
