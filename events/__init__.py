"""Events: rules applied to the results of all cameras, a store of what happened, and deliveries of it."""
