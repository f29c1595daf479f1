"""One session to many readers: following the log, subscriptions, delivery."""
