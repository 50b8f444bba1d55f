"""Requests of a replica's front: their responses, and the threads that compute them."""
