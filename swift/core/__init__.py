"""Words that every room speaks: types, registry, errors, log, ranks, plugins.

Nothing here imports a third-party package at import time, so that the command line answers at once.
"""
