"""Publishing: which rows go to serving and how precisely, the three levels of one chain, hooks."""
