"""Web push: a notification for people who have left a session before their answer ended."""
