"""What makes fewer broken images for the same evaluations, on models whose truth is known."""
