"""The log as every engine offers it: the interface, its checks, and what is built on it."""
