"""One adapter per agent framework: `wrap` makes an agent stepable without any change to its code."""
