"""Redis as a message bus.

messages (the records on the wire), keys, connection, clock; writer and reader (with settling and scripts, the Lua
scripts of lua/), results, pixel_reader, leases; dead_letters and status for people.
"""
