"""What the method is measured against: an equilibrium network, pruning, and quantised banks. Nothing of `rpgmt` imports it."""
