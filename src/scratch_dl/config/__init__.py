"""From what a user types to objects."""
