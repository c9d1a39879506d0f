"""Being a net: one FL-API server over a `Runtime`.

The server side of the FL-API is written once: routes, the download of a bundle, the store of
idempotency keys and the reports to Kafka. What differs between FL runtimes is behind the `Runtime`
protocol (`runtime.py`); `embedded` trains with numpy in a process per site. This room is another
program than the service: they share the contracts and meet on HTTP and on the status topic only.
Importing this package imports nothing else, since every site process begins with it.
"""
