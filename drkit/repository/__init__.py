"""What is stored, under which names, in which order."""
