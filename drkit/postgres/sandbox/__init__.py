"""Cutting a program off from everything but what it is given.

A restored cluster runs code that somebody else wrote: functions, triggers, COPY TO
PROGRAM, and WAL that says where to write. Between that and the host stands only the
kernel, asked in several ways, since no host has all of them and each has its holes.

`confinement` is what drkit calls; it starts `launch` as a program of its own, which
gives up what it has, by way of the other modules, and becomes the confined program.
Those import nothing that takes long.
"""
