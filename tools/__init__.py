"""Tools beside the product: what measures it and what stands in for hardware. Nothing here is installed."""
