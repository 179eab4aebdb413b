"""The pages about what was recorded: events with their details, and how many wore masks. They work without scripts."""
