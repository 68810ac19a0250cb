"""Scripts that measure the models and write docs/results/."""
