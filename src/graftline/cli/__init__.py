"""The command line: a table of functions, their help, and what is printed."""
