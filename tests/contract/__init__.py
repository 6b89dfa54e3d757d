"""Every law of the loss contract, run over every registered loss."""
