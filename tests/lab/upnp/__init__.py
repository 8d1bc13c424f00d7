"""Port mappings by a real miniupnpd in the routers of lab homes: made, used, renewed, lost, given back."""
