"""The command line: which word runs which pipeline. Nothing is imported before it is needed."""
