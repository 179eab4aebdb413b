"""The viewer: joins each result with its own frame by ID and shows labelled live video in browsers."""
