"""What adversarial training costs here, side by side with other ways to do it: `python -m benchmarks`."""
