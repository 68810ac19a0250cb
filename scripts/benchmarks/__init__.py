"""Commands that train and measure models and write docs/results/: `python -m scripts.benchmarks.NAME`."""
