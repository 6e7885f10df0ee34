"""Studies of ablations: variants of a base config, each trained with several seeds."""
