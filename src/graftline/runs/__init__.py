"""A pipeline on this machine: run, watched, summed up; images and weights stay here."""
