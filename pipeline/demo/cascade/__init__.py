"""The cascade: recall, coarse and fine ranker of one model, served by two replicas, and how fresh each stage is."""
