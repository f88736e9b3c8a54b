"""A program of any kind, looked after from outside: asked to stop while its disk has room left."""
