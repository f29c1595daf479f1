"""What a client may ask for, however it asks: publishing, turns, presence, annotations."""
