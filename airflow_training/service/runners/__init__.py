"""Where jobs run. A runner is all that the scheduler knows of a kind of machine."""
