"""A net that does what a test tells it: the real FL-API server over runs that only pretend.

`net` puts it together and takes orders, in the process or over HTTP; `runtime` holds the pretended
runs; `faults` spoils answers on their way out.
"""
