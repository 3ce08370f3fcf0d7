"""The HTTP plumbing that all protocols share. It knows no vendor and no SQL, and calls no verb of the core.

    site        a listening socket: header deadline, cap on connections, clean end
    operation   what stands around every HTTP operation: deadline, refusal, one canonical line, metrics
    body        a request's body, read or refused; parsing: the JSON in it
    stray       requests that belong to no operation: unknown path, wrong method, not HTTP at all
    canonical   the one log line and the count of a request
    downloads   images of updates by signed links
    health      /healthz, /readyz, /metrics

A request enters through `site`, meets its operation or `stray`, and leaves one line by `canonical`.
"""
