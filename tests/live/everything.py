"""Reads all records of a partition."""


def everything(log, topic="t", partition=0):
    at, found = log.begin_offset(topic, partition), []
    while step := log.read(topic, partition, at):
        found += step
        at = step[-1].offset + 1
    return found
