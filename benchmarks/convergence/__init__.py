"""The lab: what a change of method, rate or settings does to accuracy, by forward passes, seconds and bytes."""
