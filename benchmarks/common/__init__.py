"""What the speed benchmarks share: models, clocks, and the methods that ours is set beside."""
