"""The command line: the commands, their output and their exit codes."""
