"""Processes that read changed pages and fill frames with them.

Tens of thousands of scattered pages take as much of the interpreter as of the disk and
of zstd, and threads of one interpreter wait for each other. What such a process is
given and what it returns are values; it holds no lock, writes nothing, and whatever is
unusual it leaves to its parent. Without it all is done in the parent, only slower.
"""
