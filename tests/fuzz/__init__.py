"""Everything that reads bytes from outside, fed with bytes nobody meant: `make fuzz`.

A decoder may succeed or raise a `SpringtideError`; a crash, any other exception, memory allocated for a damaged length,
or more than two seconds over one input is a finding. Python decoders run under Atheris (libFuzzer, guided by coverage
of our own code), those of the C++ core are programs of `native/fuzz`. The same seed tries the same inputs.
"""
