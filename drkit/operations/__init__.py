"""One verb per module; each top function reads as the story."""
