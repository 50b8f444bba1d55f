"""HTTP requests of a replica: bounds, routes, threads, connections."""
