"""Detectors behind HTTP: an API, and a page that shows what they look at. `winnow serve` starts both.

    command   from what a user types to a running server
    app       addresses and what is behind each
    shield    who may ask: hosts, origins, keys, headers of every answer
    intake    how much may be sent, how slowly, and by how many at once
    uploads   bytes into pictures
    fetching  addresses into bytes, without reaching into private networks
    service   one request, from pictures to an answer
    engine    the queue, the batches, and a worker that may die
    worker    the process that holds the models
    pace      which share of the tokens fits into so many milliseconds
    views     what the network did, as the page draws it
"""
