"""Taking conversations over from another service that speaks Ably's REST interface: the cloud, or another deployment."""
