"""The impressions that the join holds: buckets of rows by event time, and the index over their ids."""
