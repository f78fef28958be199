"""From what a user types to objects: overrides, composed configurations, checks, and the objects built from them."""
