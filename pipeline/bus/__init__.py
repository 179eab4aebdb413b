"""Redis as a message bus.

messages (the records on the wire), connection (with cluster), clock, keys and shards; writer; reader (with
group_consumer, homes, settling, and scripts, the Lua scripts of lua/); result_consumer, pixel_reader, leases;
dead_letters and status for people. docs/queue.md describes how a frame moves.
"""
