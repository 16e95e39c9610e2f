"""A shop that sells pots: Markdown in, a static site out. The standard library is all it needs."""
