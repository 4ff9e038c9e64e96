"""The key hierarchy, the object envelope and signatures."""
