"""What is printed: progress, tables and scores."""
