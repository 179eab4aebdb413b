"""Break a real pipeline at random and check its promises: `maskwatch chaos`. It needs Linux."""
