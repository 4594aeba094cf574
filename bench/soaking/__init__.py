"""What a soak is made of: guests who behave, vandals who don't, and the watch over the server."""
