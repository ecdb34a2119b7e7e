"""What would change: the closed form and the questions asked of it."""
