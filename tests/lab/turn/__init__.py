"""warpgate-turn against the real coturn: on loopback, and between machines of the lab."""
