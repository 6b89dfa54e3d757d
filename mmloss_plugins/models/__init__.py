"""Models that need no host: BaseModels of MMEngine."""
