"""The realtime protocol over HTTP requests, for networks without websockets: ably-js' transports `xhr_polling` and `comet`."""
