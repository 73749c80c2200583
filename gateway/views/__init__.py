"""Pages of the product around the API: overview, assistants, playground, usage."""
