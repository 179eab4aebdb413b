"""The REST API under /api/v1: its operations, its OpenAPI document, and pictures that are labelled on request."""
