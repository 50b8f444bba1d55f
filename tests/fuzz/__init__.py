"""Fuzzing of every decoder of external bytes: `make fuzz`.

A decoder may succeed or raise a `SpringtideError`. A crash, any other exception, memory allocated for a damaged length,
or more than two seconds for one input is a finding. Python decoders run under Atheris (libFuzzer, guided by coverage
of our code), those of the C++ core are programs in `native/fuzz`. Inputs are determined by the seed.
"""
