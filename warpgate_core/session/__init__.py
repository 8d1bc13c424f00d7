"""The session protocol, sans-I/O: offer and answer, keys, path frames, path proof.

Nothing here opens a socket, starts a task or asks for the time.
"""
