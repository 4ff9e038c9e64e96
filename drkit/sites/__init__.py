"""The places that larger operations work at, put together from a policy.

Above `wiring`, which `wal push` comes through and which therefore stays small.
"""
