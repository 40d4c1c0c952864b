"""Training on more than one device: several processes of one machine, or several machines of a cluster."""
