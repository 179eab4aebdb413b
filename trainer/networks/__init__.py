"""Networks in Keras: built, started from published weights, exported."""
