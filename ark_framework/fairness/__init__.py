"""Is a model worse for some people: false negatives by subgroup, and training on one sex."""
