"""Golden numbers of TRL 1.16 on one fixed batch and one tiny model."""
