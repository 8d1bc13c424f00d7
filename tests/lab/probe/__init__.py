"""The strategy `probe` between NATs: in memory with virtual time, and in the lab with real ones."""
