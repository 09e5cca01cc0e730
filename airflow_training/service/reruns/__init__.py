"""Jobs that run again: what is shown of their description, what changes in it, and the copies of their files."""
