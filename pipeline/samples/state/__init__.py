"""The state of the join on disk: segments, snapshots, manifests."""
