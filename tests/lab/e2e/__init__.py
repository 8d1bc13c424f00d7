"""End to end: whole nodes on machines of the lab, through the library and through the command line."""
