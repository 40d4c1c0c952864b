"""One file per pipeline step: paths in, files out, one record back."""
