"""The embedding tables of one trainer shard."""
