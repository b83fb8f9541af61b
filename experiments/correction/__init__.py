"""What corrections repair and harm, with controls."""
