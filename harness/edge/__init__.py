"""What answers on the device: the engine in a process of its own, the server before it, and how sure it must be."""
