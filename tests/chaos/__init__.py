"""A deployment under which everything breaks, again and again, while its promises are counted."""
